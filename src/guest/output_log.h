// What a process wrote, in order, in bounded memory, for any number of readers. Each byte has a position, counted from
// the process's start. While readers are attached, room() says whether more may be appended, so that a slow reader
// slows the process instead of losing output; with no reader the newest kCapacity bytes are kept. `delivered` is how
// far some reader is known to have come: a new reader starts there, so what was lost with a connection is sent again.
// Not thread-safe.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>

namespace stasis::guest {

enum class Stream { kStdout, kStderr, kPty };

struct OutputChunk {
  Stream stream = Stream::kStdout;
  uint64_t position = 0;  // of its first byte
  std::string data;
  uint64_t end() const { return position + data.size(); }
};

class OutputLog {
 public:
  static constexpr uint64_t kCapacity = uint64_t{1} << 20;

  void append(Stream stream, std::string_view data);
  bool room() const;

  using ReaderId = uint64_t;
  ReaderId attach();  // at the oldest byte not known to be delivered
  // The next chunk for this reader, which moves behind it; nothing if it has read everything.
  std::optional<OutputChunk> next(ReaderId reader);
  void set_delivered(uint64_t position);
  void detach(ReaderId reader);

  uint64_t stored_bytes() const { return end_ - begin_; }
  void drop_delivered();

 private:
  void drop_front();

  std::deque<OutputChunk> chunks_;
  uint64_t begin_ = 0;
  uint64_t end_ = 0;
  uint64_t delivered_ = 0;
  std::map<ReaderId, uint64_t> readers_;
  ReaderId next_reader_ = 1;
};

}  // namespace stasis::guest
