#include "guest/range_header.h"

#include <algorithm>

#include "guest/text.h"

namespace stasis::guest {

RangeAnswer apply_range(std::string_view header, uint64_t size) {
  const RangeAnswer whole{RangeKind::kWhole, {0, size}};
  if (!header.starts_with("bytes=")) return whole;
  header.remove_prefix(6);
  size_t dash = header.find('-');
  if (dash == std::string_view::npos) return whole;
  auto first = parse_number(header.substr(0, dash));
  auto last = parse_number(header.substr(dash + 1));
  bool suffix = dash == 0 && last;
  bool open = first && header.substr(dash + 1).empty();
  if (suffix) {
    if (*last == 0 || size == 0) return {RangeKind::kUnsatisfiable, {}};
    uint64_t length = std::min(*last, size);
    return {RangeKind::kPart, {size - length, length}};
  }
  if (!first || (!open && (!last || *last < *first))) return whole;
  if (*first >= size) return {RangeKind::kUnsatisfiable, {}};
  uint64_t end = open ? size : std::min(*last, size - 1) + 1;
  return {RangeKind::kPart, {*first, end - *first}};
}

}  // namespace stasis::guest
