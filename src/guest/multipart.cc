#include "guest/multipart.h"

#include "guest/text.h"

namespace stasis::guest {
namespace {

constexpr size_t kMaxPartHead = size_t{16} << 10;
constexpr size_t kMaxBoundary = 200;

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// Takes a parameter's value, quoted or not, from the front of `rest`.
std::string take_value(std::string_view& rest) {
  std::string out;
  if (rest.empty() || rest.front() != '"') {
    out = std::string(trim(rest.substr(0, rest.find(';'))));
    rest.remove_prefix(std::min(rest.size(), rest.find(';')));
    return out;
  }
  rest.remove_prefix(1);
  while (!rest.empty() && rest.front() != '"') {
    if (rest.front() == '\\' && rest.size() > 1 && (rest[1] == '"' || rest[1] == '\\')) rest.remove_prefix(1);
    out.push_back(rest.front());
    rest.remove_prefix(1);
  }
  rest.remove_prefix(std::min(rest.size(), rest.find(';')));
  return out;
}

PartHead parse_head(std::string_view text) {
  PartHead head;
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find("\r\n"));
    text.remove_prefix(std::min(text.size(), line.size() + 2));
    size_t colon = line.find(':');
    if (colon == std::string_view::npos || lower_case(trim(line.substr(0, colon))) != "content-disposition") continue;
    auto parameters = header_parameters(line.substr(colon + 1));
    head.name = parameters["name"];
    head.filename = parameters["filename"];
    // RFC 5987: filename*=UTF-8''percent-encoded
    const std::string& extended = parameters["filename*"];
    size_t quotes = extended.find("''");
    if (quotes != std::string::npos) {
      if (auto decoded = percent_decode(std::string_view(extended).substr(quotes + 2), false)) head.filename = *decoded;
    }
  }
  return head;
}

}  // namespace

std::map<std::string, std::string> header_parameters(std::string_view value) {
  std::map<std::string, std::string> out;
  std::string_view rest = value.substr(std::min(value.size(), value.find(';')));
  while (!rest.empty()) {
    rest.remove_prefix(1);  // the semicolon
    size_t equals = rest.find_first_of("=;");
    if (equals == std::string_view::npos) break;
    std::string name = lower_case(trim(rest.substr(0, equals)));
    bool has_value = rest[equals] == '=';
    rest.remove_prefix(equals + (has_value ? 1 : 0));
    while (has_value && !rest.empty() && rest.front() == ' ') rest.remove_prefix(1);
    if (has_value) out[name] = take_value(rest);
  }
  return out;
}

std::optional<std::string> multipart_boundary(std::string_view content_type) {
  if (lower_case(trim(content_type.substr(0, content_type.find(';')))) != "multipart/form-data") return std::nullopt;
  std::string boundary = header_parameters(content_type)["boundary"];
  if (boundary.empty() || boundary.size() > kMaxBoundary) return std::nullopt;
  return boundary;
}

Status MultipartParser::feed(std::string_view data) {
  if (state_ == State::kDone) return {};
  buffer_.append(data);
  for (;;) {
    STASIS_ASSIGN(bool more, step());
    if (!more) return {};
  }
}

Status MultipartParser::finish() const {
  if (state_ == State::kDone) return {};
  return fail(Code::kInvalidArgument, "the multipart body ends without its closing boundary");
}

Result<bool> MultipartParser::step() {
  switch (state_) {
    case State::kPreamble:
    case State::kData:
      return skip_or_pass_data();
    case State::kAfterDelimiter:
      return after_delimiter();
    case State::kHeaders:
      return headers();
    case State::kDone:
      buffer_.clear();
      return false;
  }
  return false;
}

Result<bool> MultipartParser::skip_or_pass_data() {
  size_t at = buffer_.find(delimiter_);
  bool found = at != std::string::npos;
  // What may be the beginning of the delimiter stays.
  size_t ready = found ? at : buffer_.size() - std::min(buffer_.size(), delimiter_.size() - 1);
  if (state_ == State::kData && ready > 0) STASIS_TRY(sink_.part_data(std::string_view(buffer_).substr(0, ready)));
  buffer_.erase(0, found ? at + delimiter_.size() : ready);
  if (!found) return false;
  if (state_ == State::kData) STASIS_TRY(sink_.end_part());
  state_ = State::kAfterDelimiter;
  return true;
}

Result<bool> MultipartParser::after_delimiter() {
  if (buffer_.size() < 2) return false;
  bool last = buffer_.starts_with("--");
  if (!last && !buffer_.starts_with("\r\n")) return fail(Code::kInvalidArgument, "malformed multipart boundary");
  buffer_.erase(0, 2);
  state_ = last ? State::kDone : State::kHeaders;
  return true;
}

Result<bool> MultipartParser::headers() {
  // A part without headers begins with the empty line at once.
  size_t end = buffer_.starts_with("\r\n") ? 0 : buffer_.find("\r\n\r\n");
  if (end == std::string::npos) {
    if (buffer_.size() > kMaxPartHead) return fail(Code::kInvalidArgument, "the headers of a part are too long");
    return false;
  }
  STASIS_TRY(sink_.begin_part(parse_head(std::string_view(buffer_).substr(0, end))));
  buffer_.erase(0, end == 0 ? 2 : end + 4);
  state_ = State::kData;
  return true;
}

}  // namespace stasis::guest
