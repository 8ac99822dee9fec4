#include "pager/array_end.h"

#include <algorithm>

namespace stasis::pager {
namespace {

bool is_space(char byte) { return std::string_view(" \t\r\n").find(byte) != std::string_view::npos; }

}  // namespace

bool ArrayEnd::look_at(std::string_view bytes) {
  return std::ranges::all_of(bytes, [this](char byte) { return look_at(byte); });
}

bool ArrayEnd::look_at(char byte) {
  if (reached_) return true;  // what follows the array is the parser's to refuse
  if (in_string_) {
    look_into_string(byte);
    return true;
  }
  if (depth_ == 0 && byte != '[') return is_space(byte);
  in_string_ = byte == '"';
  if (byte == '[' || byte == '{') ++depth_;
  if (byte == ']' || byte == '}') --depth_;
  reached_ = depth_ == 0;
  return depth_ <= kMaxDepth;
}

void ArrayEnd::look_into_string(char byte) {
  if (escaped_) {
    escaped_ = false;
  } else {
    escaped_ = byte == '\\';
    in_string_ = byte != '"';
  }
}

}  // namespace stasis::pager
