#include "agent/guest_client.h"

#include <algorithm>

#include "agent/guest_answer.h"
#include "base/base64.h"

namespace stasis::agent {
namespace {

using nlohmann::json;

DirEntry entry_of(const json& object) {
  DirEntry entry;
  entry.name = text_field(object, "name");
  entry.path = text_field(object, "path");
  const std::string type = text_field(object, "type");
  entry.type = type == "FILE_TYPE_DIRECTORY" ? "directory" : type == "FILE_TYPE_SYMLINK" ? "symlink" : "file";
  entry.owner = text_field(object, "owner");
  entry.group = text_field(object, "group");
  entry.modified = text_field(object, "modifiedTime");
  entry.size = static_cast<uint64_t>(std::max<int64_t>(0, number_field(object, "size")));
  entry.mode = static_cast<uint32_t>(number_field(object, "mode"));
  return entry;
}

}  // namespace

std::vector<Interrupt> GuestClient::interrupts(const UniqueFd& ended) const {
  std::vector<Interrupt> list;
  if (ended) list.push_back({ended.get(), {Code::kUnavailable, "the sandbox has ended"}});
  if (stop_fd_ >= 0) list.push_back({stop_fd_, {Code::kUnavailable, "the host agent stops", "ask again in a moment"}});
  return list;
}

Result<GuestConnection> GuestClient::connect(Deadline deadline) const {
  STASIS_ASSIGN(GuestSocket guest, sockets_(Transport::kTcp));
  const std::vector<Interrupt> interrupts = this->interrupts(guest.ended);
  GuestConnection connection(std::move(guest.socket), std::move(guest.ended));
  TimedStream& stream = connection.stream();
  for (const Interrupt& interrupt : interrupts) stream.add_interrupt(interrupt.fd, interrupt.error);
  stream.set_deadline(deadline);
  STASIS_TRY(stream.connect(address_, kGuestDaemonPort));
  return connection;
}

Result<GuestGreeting> GuestClient::open_greeting() const {
  STASIS_ASSIGN(GuestSocket guest, sockets_(Transport::kUdp));
  STASIS_TRY(connect_ip(guest.socket.get(), address_, kGuestDaemonPort, Deadline::never()));
  std::vector<Interrupt> interrupts = this->interrupts(guest.ended);
  return GuestGreeting(std::move(guest.socket), std::move(guest.ended), std::move(interrupts));
}

http::request<http::string_body> GuestClient::request(http::verb verb, const std::string& target,
                                                      const std::string& user) const {
  http::request<http::string_body> request{verb, target, 11};
  if (!token_.empty()) request.set("X-Access-Token", token_);
  if (!user.empty()) {
    const std::string name = user + ":";
    request.set(http::field::authorization, "Basic " + base64_encode(name));
  }
  return request;
}

Result<GuestConnection> GuestClient::health(Deadline deadline) const {
  STASIS_ASSIGN(GuestConnection connection, connect(deadline));
  auto ask = request(http::verb::get, "/health", "");
  STASIS_TRY(connection.send(ask));
  STASIS_ASSIGN(const auto answer, connection.receive(kMaxGuestAnswer));
  if (answer.result_int() / 100 != 2) return fail(guest_error(answer.result_int(), answer.body()));
  return connection;
}

Result<GuestContact> GuestClient::greet(Milliseconds limit, bool patient) const {
  STASIS_ASSIGN(GuestGreeting greeting, open_greeting());
  Status answered = greeting.ask(GreetingQuestion::What::kAreYouThere, "", Deadline::after(limit));
  if (answered) return greeting;
  if (patient && answered.error().code == Code::kDeadlineExceeded) return fail(std::move(answered).error());
  STASIS_ASSIGN(GuestConnection connection, health(Deadline::after(limit)));
  return connection;
}

Status GuestClient::init(const json& body, Deadline deadline, std::optional<GuestContact> contact) const {
  const std::string text = body.dump();
  auto* const greeting = contact ? std::get_if<GuestGreeting>(&*contact) : nullptr;
  const Status done = greeting && text.size() <= kMaxQuestionBody
                          ? greeting->ask(GreetingQuestion::What::kInit, text, deadline)
                          : init_by_http(text, deadline, std::move(contact));
  if (!done) return fail(Error(done.error()).with_context("init the guest"));
  return {};
}

Status GuestClient::init_by_http(const std::string& body, Deadline deadline,
                                 std::optional<GuestContact> contact) const {
  if (!contact || !std::holds_alternative<GuestConnection>(*contact)) {
    STASIS_ASSIGN(contact, connect(deadline));
  }
  GuestConnection connection = std::get<GuestConnection>(std::move(*contact));
  connection.stream().set_deadline(deadline);
  auto ask = request(http::verb::post, "/init", "");
  ask.set(http::field::content_type, "application/json");
  ask.body() = body;
  STASIS_TRY(connection.send(ask));
  STASIS_ASSIGN(const auto answer, connection.receive(kMaxGuestAnswer));
  if (answer.result_int() / 100 != 2) return fail(guest_error(answer.result_int(), answer.body()));
  return {};
}

Result<json> GuestClient::call(const std::string& rpc, const json& body, const std::string& user) const {
  return call(rpc, body, user, {Deadline::after(kGuestCallDeadline), -1});
}

Result<json> GuestClient::call(const std::string& rpc, const json& body, const std::string& user,
                               const CallLimit& limit) const {
  STASIS_ASSIGN(GuestConnection connection, connect(Deadline::after(kGuestConnectDeadline)));
  if (limit.interrupt_fd >= 0)
    connection.stream().add_interrupt(limit.interrupt_fd, {Code::kUnavailable, "interrupted"});
  connection.stream().set_deadline(limit.deadline);
  auto ask = request(http::verb::post, "/" + rpc, user);
  ask.set(http::field::content_type, "application/json");
  ask.set("Connect-Protocol-Version", "1");
  ask.body() = body.dump();
  STASIS_TRY(connection.send(ask));
  STASIS_ASSIGN(const auto answer, connection.receive(kMaxGuestAnswer));
  if (answer.result_int() != 200) return fail(guest_error(answer.result_int(), answer.body()));
  json parsed = json::parse(answer.body(), nullptr, false);
  if (!parsed.is_object()) return fail(Code::kInternal, "the guest daemon's answer is no JSON object");
  return parsed;
}

Result<std::vector<DirEntry>> GuestClient::list_directory(const std::string& path, const std::string& user,
                                                          uint32_t depth) const {
  STASIS_ASSIGN(const json answer,
                call("filesystem.Filesystem/ListDir", {{"path", path}, {"depth", depth == 0 ? 1 : depth}}, user));
  std::vector<DirEntry> entries;
  const auto listed = answer.find("entries");
  if (listed == answer.end() || !listed->is_array()) return entries;
  for (const json& object : *listed) {
    if (object.is_object()) entries.push_back(entry_of(object));
  }
  return entries;
}

Status GuestClient::make_directory(const std::string& path, const std::string& user) const {
  STASIS_TRY(call("filesystem.Filesystem/MakeDir", {{"path", path}}, user));
  return {};
}

Status GuestClient::remove(const std::string& path, const std::string& user) const {
  STASIS_TRY(call("filesystem.Filesystem/Remove", {{"path", path}}, user));
  return {};
}

}  // namespace stasis::agent
