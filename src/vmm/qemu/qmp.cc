#include "vmm/qemu/qmp.h"

#include <array>

namespace stasis::vmm {
namespace {

using nlohmann::json;

constexpr size_t kMaxLine = 4 << 20;  // QMP answers are small; this bounds what a broken QEMU can make us keep
constexpr size_t kMaxEvents = 256;    // nobody waits for older ones

}  // namespace

const json& member(const json& object, std::initializer_list<const char*> path) {
  static const json nothing;
  const json* found = &object;
  for (const char* name : path) {
    if (!found->is_object() || !found->contains(name)) return nothing;
    found = &(*found)[name];
  }
  return *found;
}

std::string text_member(const json& object, std::initializer_list<const char*> path) {
  const json& found = member(object, path);
  return found.is_string() ? found.get<std::string>() : "";
}

Result<Qmp> Qmp::open(UniqueFd socket, Deadline deadline) {
  Qmp qmp(std::move(socket));
  // Ahead of the greeting: QEMU finds it there when it is up.
  STASIS_TRY(qmp.send("qmp_capabilities", json::object()));
  STASIS_ASSIGN(const json greeting, qmp.read_object(deadline));
  for (const char* part : {"major", "minor", "micro"}) {
    const json& number = member(greeting, {"QMP", "version", "qemu", part});
    if (!number.is_number_integer()) return fail(Code::kInternal, "QEMU did not greet in QMP");
    if (!qmp.version_.empty()) qmp.version_ += ".";
    qmp.version_ += std::to_string(number.get<int64_t>());
  }
  STASIS_TRY(qmp.answer_to("qmp_capabilities", deadline));
  return qmp;
}

Result<json> Qmp::execute(const std::string& command, const json& arguments, Deadline deadline, int fd) {
  STASIS_TRY(send(command, arguments, fd));
  return answer_to(command, deadline);
}

Status Qmp::send(const std::string& command, const json& arguments, int fd) {
  // As short as can be: QEMU takes it byte by byte, each in a turn of its main loop (3.7 us).
  json object{{"execute", command}};
  if (!arguments.empty()) object["arguments"] = arguments;
  const std::string line = object.dump() + "\n";
  const std::array fds{fd};
  STASIS_TRY_CONTEXT(send_all(socket_.get(), std::as_bytes(std::span(line)), std::span(fds.data(), fd >= 0 ? 1 : 0)),
                     "QEMU " + command);
  return {};
}

Result<json> Qmp::answer_to(const std::string& command, Deadline deadline) {
  for (;;) {
    auto answer = read_object(deadline);
    if (!answer) {
      if (answer.error().code == Code::kDeadlineExceeded) ++given_up_;
      return fail(std::move(answer).error().with_context("QEMU " + command));
    }
    if (keep_event(*answer) || drop_if_late(*answer)) continue;
    if (answer->contains("return")) return (*answer)["return"];
    const std::string reason = text_member(*answer, {"error", "desc"});
    return fail(Code::kFailedPrecondition,
                "QEMU refused " + command + ": " + (reason.empty() ? "no reason given" : reason));
  }
}

Result<json> Qmp::wait_event(const std::string& name, Deadline deadline) {
  for (;;) {
    while (!events_.empty()) {
      json event = std::move(events_.front());
      events_.pop_front();
      if (text_member(event, {"event"}) == name) return event;
    }
    auto object = read_object(deadline);
    if (!object) return fail(std::move(object).error().with_context("wait for QEMU's " + name));
    if (!keep_event(*object)) (void)drop_if_late(*object);
  }
}

Status Qmp::take_events() {
  for (;;) {
    auto object = read_object(Deadline::after(Milliseconds(0)));
    if (!object && object.error().code == Code::kDeadlineExceeded) return {};
    if (!object) return fail(std::move(object).error());
    if (!keep_event(*object)) (void)drop_if_late(*object);
  }
}

bool Qmp::drop_if_late(const json& answer) {
  if (given_up_ == 0 || !(answer.contains("return") || answer.contains("error"))) return false;
  --given_up_;
  return true;
}

bool Qmp::keep_event(json& object) {
  if (!object.contains("event")) return false;
  const std::string name = text_member(object, {"event"});
  if (name == "STOP" || name == "RESUME") has_stopped_ = name == "STOP";
  if (events_.size() == kMaxEvents) events_.pop_front();
  events_.push_back(std::move(object));
  return true;
}

Result<json> Qmp::read_object(Deadline deadline) {
  for (;;) {
    if (const size_t end = buffer_.find('\n'); end != std::string::npos) {
      json object = json::parse(buffer_.begin(), buffer_.begin() + static_cast<long>(end), nullptr, false);
      buffer_.erase(0, end + 1);
      if (!object.is_object()) return fail(Code::kInternal, "QEMU sent a line that is no JSON object");
      return object;
    }
    if (buffer_.size() > kMaxLine) return fail(Code::kInternal, "QEMU sent an endless line");
    STASIS_ASSIGN(const bool ready, wait_readable(socket_.get(), deadline));
    if (!ready) return fail(Code::kDeadlineExceeded, "QEMU did not answer in time");
    std::array<std::byte, size_t{16} * 1024> chunk;
    STASIS_ASSIGN(const Received part, receive_with_fds(socket_.get(), chunk));
    if (part.bytes == 0) return fail(Code::kUnavailable, "QEMU has exited");
    buffer_.append(reinterpret_cast<const char*>(chunk.data()), part.bytes);
  }
}

}  // namespace stasis::vmm
