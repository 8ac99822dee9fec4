#include "agent/guest_answer.h"
#include "agent/guest_client.h"
#include "base/percent.h"

namespace stasis::agent {
namespace {

constexpr size_t kFilePiece = 256 << 10;

std::string files_target(const std::string& path, const std::string& user) {
  std::string target = "/files?path=" + percent_encode(path, "/");
  if (!user.empty()) target += "&username=" + percent_encode(user);
  return target;
}

}  // namespace

Status GuestClient::read_file(const std::string& path, const std::string& user,
                              const std::function<Status(uint64_t, std::string_view)>& take) const {
  STASIS_ASSIGN(GuestConnection connection, connect(Deadline::after(kGuestConnectDeadline)));
  connection.stream().set_deadline(Deadline::after(kGuestCallDeadline));
  auto ask = request(http::verb::get, files_target(path, user), user);
  STASIS_TRY(connection.send(ask));
  http::response_parser<http::buffer_body> parser;
  parser.body_limit(boost::none);
  boost::system::error_code code;
  http::read_header(connection.stream(), connection.buffer(), parser, code);
  if (code) return fail(connection.failure(code, "read " + path));
  const bool ok = parser.get().result_int() / 100 == 2;
  const uint64_t size = parser.content_length().value_or(0);
  std::string error_body;
  std::vector<char> piece(kFilePiece);
  if (ok) STASIS_TRY(take(size, {}));
  while (!parser.is_done()) {
    parser.get().body().data = piece.data();
    parser.get().body().size = piece.size();
    connection.stream().set_deadline(Deadline::after(kGuestCallDeadline));
    http::read(connection.stream(), connection.buffer(), parser, code);
    if (code == http::error::need_buffer) code = {};
    if (code) return fail(connection.failure(code, "read " + path));
    const std::string_view got(piece.data(), piece.size() - parser.get().body().size);
    if (ok) {
      STASIS_TRY(take(size, got));
    } else if (error_body.size() < kFilePiece) {
      error_body.append(got);
    }
  }
  if (!ok) return fail(guest_error(parser.get().result_int(), error_body));
  return {};
}

Result<uint64_t> GuestClient::write_file(const std::string& path, const std::string& user,
                                         const std::function<Result<std::string>()>& give) const {
  STASIS_ASSIGN(GuestConnection connection, connect(Deadline::after(kGuestConnectDeadline)));
  auto head = request(http::verb::post, files_target(path, user), user);
  http::request<http::buffer_body> ask{head.base()};
  ask.set(http::field::host, "guest");
  ask.set(http::field::content_type, "application/octet-stream");
  ask.chunked(true);
  ask.body().data = nullptr;
  ask.body().more = true;
  http::request_serializer<http::buffer_body> serializer{ask};
  boost::system::error_code code;
  connection.stream().set_deadline(Deadline::after(kGuestCallDeadline));
  http::write_header(connection.stream(), serializer, code);
  uint64_t total = 0;
  while (!code && ask.body().more) {
    STASIS_ASSIGN(std::string piece, give());
    total += piece.size();
    ask.body().data = piece.empty() ? nullptr : piece.data();
    ask.body().size = piece.size();
    ask.body().more = !piece.empty();
    connection.stream().set_deadline(Deadline::after(kGuestCallDeadline));
    http::write(connection.stream(), serializer, code);
    if (code == http::error::need_buffer) code = {};
  }
  // The daemon may refuse (no such user, disk full) before it has read everything: its answer says why.
  auto answer = connection.receive(kMaxGuestAnswer);
  if (answer && answer->result_int() / 100 != 2) return fail(guest_error(answer->result_int(), answer->body()));
  if (code) return fail(connection.failure(code, "write " + path));
  if (!answer) return fail(std::move(answer).error());
  return total;
}

}  // namespace stasis::agent
