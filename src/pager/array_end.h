// Where a message ends that has no length of its own and is one JSON array. Each byte is looked at once, however the
// message is cut: parsing again after every read would let a peer that sends "[1,[],[],[]..." byte by byte keep this
// process busy for hours. What is between the brackets is the parser's business.
#pragma once

#include <string_view>

namespace stasis::pager {

class ArrayEnd {
 public:
  // A list of objects has two; what is nested deeper than this is none, and costs a parser heap.
  static constexpr int kMaxDepth = 16;

  // The bytes that follow those it has seen. False: the message does not begin as an array, or nests too deeply.
  bool look_at(std::string_view bytes);
  // The array has been closed.
  bool reached() const { return reached_; }

 private:
  bool look_at(char byte);
  void look_into_string(char byte);

  int depth_ = 0;
  bool in_string_ = false;
  bool escaped_ = false;
  bool reached_ = false;
};

}  // namespace stasis::pager
