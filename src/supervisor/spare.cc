#include "supervisor/spare.h"

#include "base/process.h"
#include "base/signals.h"
#include "base/unix_socket.h"
#include "supervisor/config_file.h"

namespace stasis::supervisor {
namespace {

using nlohmann::json;

constexpr Milliseconds kMessageDeadline{2'000};

class Spare {
 public:
  Spare(Path dir, Shell shell, int listener, int signal_fd)
      : dir_(std::move(dir)), shell_(std::move(shell)), listener_(listener), signal_fd_(signal_fd) {}

  // The agent that started it is the only one who asks, over one connection.
  Result<std::optional<Takeover>> wait() {
    for (;;) {
      const std::array fds{shell_.vmm->pidfd(), signal_fd_, client_ ? client_.get() : listener_};
      STASIS_ASSIGN(const auto ready, wait_any(fds, Deadline::never()));
      if (ready[0]) return fail(Code::kUnavailable, "the VMM ended by itself: " + shell_.vmm->stop());
      if (ready[1] && read_signal(signal_fd_) != 0) return std::nullopt;
      if (!ready[2]) continue;
      if (!client_) {
        STASIS_ASSIGN(client_, accept_unix(listener_, Milliseconds(0)));
        continue;
      }
      STASIS_ASSIGN(const auto request, receive_message(client_.get(), kMessageDeadline));
      if (!request) return std::nullopt;  // whoever had it has let it go
      Result<json> result = dispatch(json::parse(request->body, nullptr, false));
      const json answer = result ? json{{"ok", *result}} : json{{"error", to_json(result.error())}};
      STASIS_TRY(send_message(client_.get(), answer.dump()));
      if (!result) return fail(std::move(result).error());
      if (takeover_) {
        takeover_->shell = std::move(shell_);
        takeover_->client = std::move(client_);
        return std::move(takeover_);
      }
    }
  }

 private:
  Result<json> dispatch(const json& request) {
    const std::string op = request.is_object() ? request.value("op", "") : "";
    if (op == "become") {
      STASIS_TRY(become(request.value("sandbox_dir", "")));
    } else if (op != "spare") {
      return fail(Code::kInvalidArgument, "unknown request '" + op + "' to a spare");
    }
    return json::object();
  }

  // The socket moves last: whoever finds it in the sandbox's directory finds the rest there too. Until it has, this
  // process dies with its agent; from then on the next agent finds it.
  Status become(const Path& sandbox_dir) {
    STASIS_ASSIGN(SandboxConfig config, read_config_file<SandboxConfig>(sandbox_dir / kConfigFile, config_from_json));
    FileSystem& fs = real_file_system();
    for (const char* name : {kVmmLog, kSupervisorLog, kControlSocket}) {
      STASIS_TRY(fs.rename(dir_ / name, sandbox_dir / name));
    }
    STASIS_TRY(outlive_parent());
    takeover_ = Takeover{sandbox_dir, std::move(config), {}, {}};
    return {};
  }

  Path dir_;
  Shell shell_;
  int listener_;
  int signal_fd_;
  UniqueFd client_;
  std::optional<Takeover> takeover_;
};

}  // namespace

Result<std::optional<Takeover>> wait_as_spare(const Path& dir, int listener, int signal_fd) {
  STASIS_ASSIGN(const SpareConfig config, read_config_file<SpareConfig>(dir / kSpareFile, spare_config_from_json));
  Shell shell = plan_shell(config, dir, has_kvm(config.vmm));
  STASIS_TRY(put_up(shell, true, make_surroundings));
  return Spare(dir, std::move(shell), listener, signal_fd).wait();
}

}  // namespace stasis::supervisor
