// The kernel command line's parameters that Stasis reads: stasis.ip=ADDRESS/BITS stasis.gw=ADDRESS stasis.dns=ADDRESS
// stasis.hostname=NAME root=/dev/NAME.
#pragma once

#include <netinet/in.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace stasis::guest {

// Words of the form name=value; of two with one name the last.
std::map<std::string, std::string> parse_cmdline(std::string_view text);

struct AddressWithMask {
  in_addr address{};
  in_addr mask{};
};

std::optional<in_addr> parse_address(const std::string& text);
std::optional<AddressWithMask> parse_cidr(const std::string& text);  // "172.30.0.2/30"

}  // namespace stasis::guest
