#include "guest/kernel_cmdline.h"

#include <arpa/inet.h>

#include "guest/text.h"

namespace stasis::guest {

std::map<std::string, std::string> parse_cmdline(std::string_view text) {
  std::map<std::string, std::string> out;
  while (!text.empty()) {
    size_t end = text.find_first_of(" \t\n");
    std::string_view word = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    size_t equals = word.find('=');
    if (equals != std::string_view::npos && equals > 0)
      out[std::string(word.substr(0, equals))] = word.substr(equals + 1);
  }
  return out;
}

std::optional<in_addr> parse_address(const std::string& text) {
  in_addr address{};
  if (inet_pton(AF_INET, text.c_str(), &address) != 1) return std::nullopt;
  return address;
}

std::optional<AddressWithMask> parse_cidr(const std::string& text) {
  size_t slash = text.find('/');
  if (slash == std::string::npos) return std::nullopt;
  auto address = parse_address(text.substr(0, slash));
  auto bits = parse_number(std::string_view(text).substr(slash + 1));
  if (!address || !bits || *bits < 1 || *bits > 32) return std::nullopt;
  AddressWithMask out;
  out.address = *address;
  out.mask.s_addr = htonl(static_cast<uint32_t>(~uint64_t{0} << (32 - *bits)));
  return out;
}

}  // namespace stasis::guest
