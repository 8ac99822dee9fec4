// An Exchange for tests of single parts: the request is given as values, the answer is kept.
#pragma once

#include <algorithm>
#include <stdexcept>

#include "guest/exchange.h"

namespace stasis::guest {

class FakeExchange final : public Exchange {
 public:
  std::string request_method = "POST";
  std::string request_path = "/";
  std::map<std::string, std::string> request_headers;  // as they are asked for
  std::map<std::string, std::string> request_query;
  std::string body;
  size_t piece = 1U << 20;  // how much of the body one read gives at most

  int status = 0;
  std::string answer;

  std::string_view method() const override { return request_method; }
  const std::string& path() const override { return request_path; }
  std::optional<std::string> query(std::string_view name) const override { return find(request_query, name); }
  std::string header(std::string_view name) const override { return find(request_headers, name).value_or(""); }
  Headers headers_with_prefix(std::string_view) const override { return {}; }
  Result<size_t> read_body(std::span<char> out) override {
    size_t count = std::min({out.size(), piece, body.size() - at_});
    std::copy_n(body.begin() + static_cast<ptrdiff_t>(at_), count, out.begin());
    at_ += count;
    return count;
  }
  void send(int code, const Headers&, std::string_view text) override {
    status = code;
    answer = text;
  }
  bool begin(int code, const Headers&, uint64_t) override {
    status = code;
    return true;
  }
  bool begin_stream(int code, const Headers&) override {
    status = code;
    return true;
  }
  bool write(std::string_view data) override {
    answer.append(data);
    return true;
  }
  void finish() override {}
  Socket& socket() override { throw std::logic_error("a fake exchange has no socket"); }
  bool answered() const override { return status != 0; }

 private:
  static std::optional<std::string> find(const std::map<std::string, std::string>& map, std::string_view name) {
    auto at = map.find(std::string(name));
    return at == map.end() ? std::nullopt : std::optional<std::string>(at->second);
  }

  size_t at_ = 0;
};

}  // namespace stasis::guest
