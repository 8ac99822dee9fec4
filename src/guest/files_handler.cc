#include "guest/files_handler.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "guest/gzip.h"
#include "guest/multipart.h"
#include "guest/range_header.h"
#include "guest/text.h"
#include "guest/upload.h"

namespace stasis::guest {
namespace {

using nlohmann::json;

constexpr size_t kBufferBytes = size_t{256} << 10;
constexpr std::string_view kMetadataPrefix = "x-metadata-";

int status_of(const Error& error) {
  switch (error.code) {
    case Code::kInvalidArgument:
      return 400;
    case Code::kUnauthenticated:
      return 401;
    case Code::kPermissionDenied:
      return 403;
    case Code::kNotFound:
      return 404;
    case Code::kResourceExhausted:
      return 507;
    case Code::kUnavailable:
      return 400;  // the body ended early
    default:
      return 500;
  }
}

json entry_of(const std::string& path, const std::map<std::string, std::string>& metadata) {
  json entry = {{"name", std::filesystem::path(path).filename().string()}, {"path", path}, {"type", "file"}};
  if (!metadata.empty()) entry["metadata"] = metadata;
  return entry;
}

std::map<std::string, std::string> requested_metadata(const Exchange& exchange) {
  std::map<std::string, std::string> out;
  for (const auto& [name, value] : exchange.headers_with_prefix(kMetadataPrefix)) {
    if (name.size() > kMetadataPrefix.size()) out[name.substr(kMetadataPrefix.size())] = value;
  }
  return out;
}

// Stores the parts named "file".
class PartWriter final : public MultipartSink {
 public:
  PartWriter(const Settings& settings, const User& user, std::optional<std::string> path,
             std::map<std::string, std::string> metadata, json& written)
      : settings_(settings), user_(user), path_(std::move(path)), metadata_(std::move(metadata)), written_(written) {}

  Status begin_part(const PartHead& head) override {
    if (head.name != "file") return {};
    std::string name = path_ ? *path_ : head.filename;
    if (name.empty() || name.find('\0') != std::string::npos) {
      return fail(Code::kInvalidArgument, "a part named 'file' has neither a filename nor a path in the query");
    }
    std::string path = settings_.resolve_path(user_, name);
    for (const json& earlier : written_) {
      if (earlier["path"] == path) return fail(Code::kInvalidArgument, "two parts of the request name " + path);
    }
    STASIS_ASSIGN(upload_, Upload::open(path, user_));
    return {};
  }
  Status part_data(std::string_view data) override { return upload_ ? upload_->write(data) : Status(); }
  Status end_part() override {
    if (!upload_) return {};
    STASIS_TRY(upload_->finish(metadata_));
    written_.push_back(entry_of(upload_->path(), metadata_));
    upload_.reset();
    return {};
  }

 private:
  const Settings& settings_;
  const User& user_;
  std::optional<std::string> path_;
  std::map<std::string, std::string> metadata_;
  json& written_;
  std::optional<Upload> upload_;
};

Status send_range(Exchange& exchange, int fd, ByteRange range) {
  std::vector<char> buffer(std::min<uint64_t>(kBufferBytes, std::max<uint64_t>(range.length, 1)));
  uint64_t at = range.offset;
  while (at < range.offset + range.length) {
    size_t wanted = std::min<uint64_t>(buffer.size(), range.offset + range.length - at);
    ssize_t count = pread(fd, buffer.data(), wanted, static_cast<off_t>(at));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {  // it shrank, or cannot be read: the client must not take this for the whole file
      exchange.socket().shut_down();
      return {};
    }
    if (!exchange.write({buffer.data(), static_cast<size_t>(count)})) return {};
    at += static_cast<uint64_t>(count);
  }
  exchange.finish();
  return {};
}

// Of a file system that makes its files up as they are read, a size says nothing: /proc says 0, /sys a page.
bool is_made_up(int fd, uint64_t size) {
  struct statfs system {};
  if (fstatfs(fd, &system) != 0) return false;
  switch (system.f_type) {
    case PROC_SUPER_MAGIC:
      return size == 0;  // what says more there means it
    case SYSFS_MAGIC:
    case CGROUP_SUPER_MAGIC:
    case CGROUP2_SUPER_MAGIC:
    case DEBUGFS_MAGIC:
    case TRACEFS_MAGIC:
    case SECURITYFS_MAGIC:
      return true;
    default:
      return false;
  }
}

Status send_to_its_end(Exchange& exchange, int fd, const Headers& headers) {
  if (!exchange.begin_stream(200, headers) || exchange.method() == "HEAD") return {};
  std::vector<char> buffer(kBufferBytes);
  for (;;) {
    ssize_t count = read(fd, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) exchange.socket().shut_down();  // the client must not take this for the whole file
    if (count < 0 || !exchange.write({buffer.data(), static_cast<size_t>(count)})) return {};
    if (count == 0) break;
  }
  exchange.finish();
  return {};
}

Status send_gzip(Exchange& exchange, int fd, Headers headers) {
  headers.emplace_back("Content-Encoding", "gzip");
  GzipEncoder encoder;
  std::vector<char> buffer(kBufferBytes);
  if (!exchange.begin_stream(200, headers)) return {};
  for (;;) {
    ssize_t count = read(fd, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      exchange.socket().shut_down();
      return {};
    }
    bool last = count == 0;
    if (!exchange.write(encoder.encode({buffer.data(), static_cast<size_t>(count)}, last))) return {};
    if (last) break;
  }
  exchange.finish();
  return {};
}

}  // namespace

void FilesHandler::handle(Exchange& exchange) {
  bool reading = exchange.method() == "GET" || exchange.method() == "HEAD";
  if (!reading && exchange.method() != "POST") return send_http_error(exchange, 405, "method not allowed");
  Status done = authorize(exchange, reading ? "read" : "write");
  if (done) {
    auto user = settings_.user(exchange.query("username").value_or(""));
    done = !user ? Status(fail(user.error())) : reading ? download(exchange, *user) : upload(exchange, *user);
  }
  if (!done && !exchange.answered()) send_http_error(exchange, status_of(done.error()), done.error().message);
}

Status FilesHandler::authorize(Exchange& exchange, std::string_view operation) const {
  std::string header = exchange.header("X-Access-Token");
  auto signature = exchange.query("signature");
  if (settings_.token_matches(header)) return {};
  if (!header.empty() || !signature) {
    return fail(Code::kUnauthenticated,
                "missing or wrong access token: send X-Access-Token, or a signature in the query");
  }
  std::optional<uint64_t> expiration;
  if (auto text = exchange.query("signature_expiration")) {
    expiration = parse_number(*text);
    if (!expiration) return fail(Code::kUnauthenticated, "signature_expiration is not a number");
  }
  std::string expected = url_signature(exchange.query("path").value_or(""), operation,
                                       exchange.query("username").value_or(""), settings_.token(), expiration);
  if (!equal_secrets(expected, *signature)) return fail(Code::kUnauthenticated, "invalid signature");
  if (expiration && static_cast<uint64_t>(std::time(nullptr)) > *expiration) {
    return fail(Code::kUnauthenticated, "signature is already expired");
  }
  return {};
}

Status FilesHandler::download(Exchange& exchange, const User& user) {
  std::string path = settings_.resolve_path(user, exchange.query("path").value_or(""));
  struct stat info {};
  if (path.find('\0') != std::string::npos || stat(path.c_str(), &info) != 0) {
    return fail(Code::kNotFound, "path '" + path + "' does not exist");
  }
  if (S_ISDIR(info.st_mode)) return fail(Code::kInvalidArgument, "path '" + path + "' is a directory");
  if (!S_ISREG(info.st_mode)) return fail(Code::kInvalidArgument, "path '" + path + "' is not a regular file");
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd || fstat(fd.get(), &info) != 0) return fail_errno(errno, "open " + path);
  auto size = static_cast<uint64_t>(info.st_size);
  Headers headers = {
      {"Content-Type", "application/octet-stream"}, {"Accept-Ranges", "bytes"}, {"Vary", "Accept-Encoding"}};
  std::string range_header = exchange.header("Range");
  // "gzip, deflate", which clients send by default, does not ask for it: compressing costs more than it saves here.
  if (exchange.header("Accept-Encoding") == "gzip" && range_header.empty() && exchange.method() == "GET") {
    return send_gzip(exchange, fd.get(), std::move(headers));
  }
  if (is_made_up(fd.get(), size)) return send_to_its_end(exchange, fd.get(), headers);
  RangeAnswer answer = apply_range(range_header, size);
  if (answer.kind == RangeKind::kUnsatisfiable) {
    exchange.send(416, {{"Content-Range", "bytes */" + std::to_string(size)}}, "");
    return {};
  }
  bool part = answer.kind == RangeKind::kPart;
  if (part) {
    headers.emplace_back("Content-Range", "bytes " + std::to_string(answer.range.offset) + "-" +
                                              std::to_string(answer.range.offset + answer.range.length - 1) + "/" +
                                              std::to_string(size));
  }
  if (!exchange.begin(part ? 206 : 200, headers, answer.range.length) || exchange.method() == "HEAD") return {};
  return send_range(exchange, fd.get(), answer.range);
}

Status FilesHandler::upload(Exchange& exchange, const User& user) {
  std::string type = exchange.header("Content-Type");
  auto path = exchange.query("path");
  json written = json::array();
  if (auto boundary = multipart_boundary(type)) {
    STASIS_TRY(upload_parts(exchange, user, *boundary, written));
  } else if (lower_case(type).starts_with("application/octet-stream")) {
    if (!path || path->empty() || path->find('\0') != std::string::npos) {
      return fail(Code::kInvalidArgument, "an octet-stream upload needs a path in the query");
    }
    STASIS_TRY(upload_stream(exchange, user, settings_.resolve_path(user, *path), written));
  } else {
    return fail(Code::kInvalidArgument, "Content-Type must be multipart/form-data or application/octet-stream");
  }
  exchange.send(200, {{"Content-Type", "application/json"}}, to_text(written));
  return {};
}

namespace {

// Passes the body, decompressed if it is gzip, to `use`.
template <typename Use>
Status each_piece(Exchange& exchange, const Use& use) {
  std::string encoding = lower_case(exchange.header("Content-Encoding"));
  if (!encoding.empty() && encoding != "identity" && encoding != "gzip") {
    return fail(Code::kInvalidArgument, "Content-Encoding '" + encoding + "' is not supported");
  }
  std::optional<GzipDecoder> decoder;
  if (encoding == "gzip") decoder.emplace();
  std::vector<char> buffer(kBufferBytes);
  for (;;) {
    STASIS_ASSIGN(size_t count, exchange.read_body(buffer));
    std::string_view piece(buffer.data(), count);
    if (count == 0) return decoder ? decoder->finish() : Status();
    STASIS_TRY(decoder ? decoder->decode(piece, use) : use(piece));
  }
}

}  // namespace

Status FilesHandler::upload_stream(Exchange& exchange, const User& user, const std::string& path, json& written) {
  auto metadata = requested_metadata(exchange);
  STASIS_ASSIGN(Upload upload, Upload::open(path, user));
  STASIS_TRY(each_piece(exchange, [&](std::string_view piece) { return upload.write(piece); }));
  STASIS_TRY(upload.finish(metadata));
  written.push_back(entry_of(path, metadata));
  return {};
}

Status FilesHandler::upload_parts(Exchange& exchange, const User& user, const std::string& boundary, json& written) {
  PartWriter writer(settings_, user, exchange.query("path"), requested_metadata(exchange), written);
  MultipartParser parser(boundary, writer);
  STASIS_TRY(each_piece(exchange, [&](std::string_view piece) { return parser.feed(piece); }));
  STASIS_TRY(parser.finish());
  if (written.empty()) return fail(Code::kInvalidArgument, "the request holds no part named 'file'");
  return {};
}

}  // namespace stasis::guest
