// The double's API: Firecracker's routes, in its order, with its words. One request at a time.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "machine.h"

namespace fake {

struct Request {
  std::string method;
  std::string target;
  std::string body;
};

struct Answer {
  unsigned status = 204;
  std::string body;          // JSON; empty with 204
  bool end_process = false;  // after it was sent
};

class Api {
 public:
  Answer handle(const Request& request);

 private:
  Answer get(const std::string& target) const;
  Answer put(const std::string& target, const nlohmann::json& body);
  Answer configure(const std::string& target, const nlohmann::json& body);
  Answer configure_drive(const nlohmann::json& body);
  Answer configure_interface(const nlohmann::json& body);
  Answer act(const nlohmann::json& body);
  Answer patch(const std::string& target, const nlohmann::json& body);
  Answer create(const nlohmann::json& body);
  Answer load(const nlohmann::json& body);
  std::string state() const;

  nlohmann::json config_{{"drives", nlohmann::json::array()}, {"interfaces", nlohmann::json::array()}};
  bool configured_ = false;
  std::unique_ptr<Machine> machine_;
};

Answer fault(const std::string& message);

}  // namespace fake
