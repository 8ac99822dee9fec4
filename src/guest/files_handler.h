// GET and POST /files: downloads with ranges, uploads as octet-stream or multipart/form-data. Allowed with the access
// token, or with a signature in the query.
#pragma once

#include <nlohmann/json.hpp>

#include "guest/exchange.h"
#include "guest/settings.h"

namespace stasis::guest {

class FilesHandler {
 public:
  explicit FilesHandler(const Settings& settings) : settings_(settings) {}
  void handle(Exchange& exchange);

 private:
  Status authorize(Exchange& exchange, std::string_view operation) const;
  Status download(Exchange& exchange, const User& user);
  Status upload(Exchange& exchange, const User& user);
  Status upload_stream(Exchange& exchange, const User& user, const std::string& path, nlohmann::json& written);
  Status upload_parts(Exchange& exchange, const User& user, const std::string& boundary, nlohmann::json& written);

  const Settings& settings_;
};

}  // namespace stasis::guest
