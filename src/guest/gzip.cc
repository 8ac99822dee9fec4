#include "guest/gzip.h"

#include <zlib.h>

#include <vector>

namespace stasis::guest {
namespace {

constexpr int kGzipWindow = 15 + 16;  // 16 asks zlib for the gzip form
constexpr size_t kPart = size_t{64} << 10;

}  // namespace

struct GzipEncoder::State {
  z_stream stream{};
};

GzipEncoder::GzipEncoder() : state_(std::make_unique<State>()) {
  (void)deflateInit2(&state_->stream, Z_BEST_SPEED, Z_DEFLATED, kGzipWindow, 8, Z_DEFAULT_STRATEGY);
}

GzipEncoder::~GzipEncoder() { (void)deflateEnd(&state_->stream); }

std::string GzipEncoder::encode(std::string_view data, bool last) {
  z_stream& stream = state_->stream;
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(data.data()));
  stream.avail_in = static_cast<uInt>(data.size());
  std::string out;
  size_t used = 0;
  do {
    out.resize(used + kPart);
    stream.next_out = reinterpret_cast<Bytef*>(out.data() + used);
    stream.avail_out = kPart;
    (void)deflate(&stream, last ? Z_FINISH : Z_NO_FLUSH);
    used += kPart - stream.avail_out;
  } while (stream.avail_out == 0);
  out.resize(used);
  return out;
}

struct GzipDecoder::State {
  z_stream stream{};
  std::vector<char> out = std::vector<char>(kPart);
  bool done = false;
};

GzipDecoder::GzipDecoder() : state_(std::make_unique<State>()) { (void)inflateInit2(&state_->stream, kGzipWindow); }

GzipDecoder::~GzipDecoder() { (void)inflateEnd(&state_->stream); }

Status GzipDecoder::decode(std::string_view data, const std::function<Status(std::string_view)>& use) {
  z_stream& stream = state_->stream;
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(data.data()));
  stream.avail_in = static_cast<uInt>(data.size());
  do {
    if (state_->done) {  // gzip files may follow each other
      if (stream.avail_in == 0) return {};
      (void)inflateReset(&stream);
      state_->done = false;
    }
    stream.next_out = reinterpret_cast<Bytef*>(state_->out.data());
    stream.avail_out = kPart;
    int result = inflate(&stream, Z_NO_FLUSH);
    if (result == Z_BUF_ERROR) return {};
    if (result != Z_OK && result != Z_STREAM_END) return fail(Code::kInvalidArgument, "the body is not valid gzip");
    state_->done = result == Z_STREAM_END;
    STASIS_TRY(use({state_->out.data(), kPart - stream.avail_out}));
  } while (stream.avail_in > 0 || stream.avail_out == 0);
  return {};
}

Status GzipDecoder::finish() const {
  if (state_->done) return {};
  return fail(Code::kInvalidArgument, "the gzip body ended early");
}

}  // namespace stasis::guest
