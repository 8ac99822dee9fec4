#include "guest/text.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <ctime>

namespace stasis::guest {
namespace {

int base64_value(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  if (c == '+' || c == '-') return 62;
  if (c == '/' || c == '_') return 63;
  return -1;
}

// Reads exactly `digits` decimal digits from the front of `text`.
std::optional<int> take_digits(std::string_view& text, size_t digits) {
  if (text.size() < digits) return std::nullopt;
  int value = 0;
  for (char c : text.substr(0, digits)) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + (c - '0');
  }
  text.remove_prefix(digits);
  return value;
}

bool take(std::string_view& text, char expected) {
  if (text.empty() || text.front() != expected) return false;
  text.remove_prefix(1);
  return true;
}

std::optional<int64_t> take_fraction(std::string_view& text) {
  if (!take(text, '.')) return 0;
  int64_t value = 0;
  size_t digits = 0;
  while (!text.empty() && text.front() >= '0' && text.front() <= '9') {
    if (digits < 9) value = value * 10 + (text.front() - '0');
    ++digits;
    text.remove_prefix(1);
  }
  if (digits == 0) return std::nullopt;
  for (size_t i = digits; i < 9; ++i) value *= 10;
  return value;
}

std::optional<int64_t> take_zone_seconds(std::string_view& text) {
  if (take(text, 'Z') || take(text, 'z')) return 0;
  int64_t sign = take(text, '+') ? 1 : take(text, '-') ? -1 : 0;
  if (sign == 0) return std::nullopt;
  auto hours = take_digits(text, 2);
  if (!hours || !take(text, ':')) return std::nullopt;
  auto minutes = take_digits(text, 2);
  if (!minutes || *hours > 23 || *minutes > 59) return std::nullopt;
  return sign * (*hours * 3600 + *minutes * 60);
}

}  // namespace

std::vector<std::pair<std::string, std::string>> parse_query(std::string_view query) {
  std::vector<std::pair<std::string, std::string>> out;
  while (!query.empty()) {
    std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), pair.size() + 1));
    size_t equals = pair.find('=');
    auto name = percent_decode(pair.substr(0, equals), true);
    auto value = equals == std::string_view::npos ? std::string() : percent_decode(pair.substr(equals + 1), true);
    if (name && value && !name->empty()) out.emplace_back(std::move(*name), std::move(*value));
  }
  return out;
}

std::optional<std::string> base64_decode(std::string_view text) {
  while (!text.empty() && text.back() == '=') text.remove_suffix(1);
  if (text.size() % 4 == 1) return std::nullopt;
  std::string out;
  out.reserve(text.size() * 3 / 4);
  uint32_t bits = 0;
  int count = 0;
  for (char c : text) {
    int value = base64_value(c);
    if (value < 0) return std::nullopt;
    bits = bits << 6 | static_cast<uint32_t>(value);
    count += 6;
    if (count >= 8) {
      count -= 8;
      out.push_back(static_cast<char>(bits >> count & 0xFF));
    }
  }
  return out;
}

std::optional<uint64_t> parse_number(std::string_view text) {
  uint64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

std::optional<int64_t> parse_rfc3339(std::string_view text) {
  std::tm time{};
  auto field = [&](size_t digits, int& into, char separator) {
    auto value = take_digits(text, digits);
    if (!value) return false;
    into = *value;
    return separator == 0 || take(text, separator);
  };
  if (!field(4, time.tm_year, '-') || !field(2, time.tm_mon, '-') || !field(2, time.tm_mday, 0)) return std::nullopt;
  if (!take(text, 'T') && !take(text, 't')) return std::nullopt;
  if (!field(2, time.tm_hour, ':') || !field(2, time.tm_min, ':') || !field(2, time.tm_sec, 0)) return std::nullopt;
  auto fraction = take_fraction(text);
  auto zone = fraction ? take_zone_seconds(text) : std::nullopt;
  if (!zone || !text.empty()) return std::nullopt;
  bool in_range = time.tm_year >= 1970 && time.tm_year < 2262 && time.tm_mon >= 1 && time.tm_mon <= 12 &&
                  time.tm_mday >= 1 && time.tm_mday <= 31 && time.tm_hour < 24 && time.tm_min < 60 && time.tm_sec <= 60;
  if (!in_range) return std::nullopt;
  time.tm_year -= 1900;
  time.tm_mon -= 1;
  return (static_cast<int64_t>(timegm(&time)) - *zone) * 1'000'000'000 + *fraction;
}

std::string lower_case(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + ('a' - 'A'));
  }
  return out;
}

bool equal_secrets(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned difference = 0;
  for (size_t i = 0; i < a.size(); ++i) difference |= static_cast<uint8_t>(a[i]) ^ static_cast<uint8_t>(b[i]);
  return difference == 0;
}

std::string to_text(const nlohmann::json& value) {
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::optional<nlohmann::json> parse_object(std::string_view text) {
  auto value = nlohmann::json::parse(text, nullptr, false);
  if (!value.is_object()) return std::nullopt;
  return value;
}

}  // namespace stasis::guest
