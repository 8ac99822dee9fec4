// snapshot verify: every frame and part of a snapshot, or of all, checked on the host; what is damaged named as it is
// found. Exit status: 0 all whole, 1 something is damaged or the verification failed.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "cli/command_line.h"
#include "cli/connection.h"
#include "cli/progress.h"
#include "cli/table.h"

namespace stasis::cli {
namespace {

struct VerifyOptions {
  std::string name;
  bool all = false;
};

// Documents that come one a line, in pieces of any size.
class Lines {
 public:
  static constexpr size_t kMaxLine = size_t{16} << 20;

  Status take(std::string_view piece, const std::function<Status(const Json&)>& on_document) {
    rest_ += piece;
    for (size_t end = 0; (end = rest_.find('\n')) != std::string::npos; rest_.erase(0, end + 1)) {
      const Json document = Json::parse(rest_.substr(0, end), nullptr, false);
      if (!document.is_object()) return not_understood();
      STASIS_TRY(on_document(document));
    }
    return rest_.size() <= kMaxLine ? Status() : not_understood();
  }

 private:
  static Status not_understood() {
    return fail(Code::kInternal, "the server sent something that is not a line of JSON",
                "use a stasis program of the server's version");
  }
  std::string rest_;
};

std::string bar(double done, double total) {
  constexpr int kWidth = 30;
  const double share = total > 0 ? std::clamp(done / total, 0.0, 1.0) : 0;
  const auto filled = static_cast<size_t>(share * kWidth);
  return fmt::format("[{}{}] {:.0f} %, {} of {}", std::string(filled, '#'), std::string(kWidth - filled, '.'),
                     share * 100, size_text(static_cast<uint64_t>(done)), size_text(static_cast<uint64_t>(total)));
}

// "warm (snapshot 1b4e...), sandbox k3v9... (snapshot 77aa...)"
std::string needed_by(const Json& damage) {
  std::string text;
  const auto add = [&](const std::string& word) { text += (text.empty() ? "" : ", ") + word; };
  const auto found = damage.find("snapshots");
  if (found == damage.end() || !found->is_array()) return text;
  for (const Json& one : *found) {
    const std::string id = text_field(one, "snapshot_id");
    bool named = false;
    for (const char* kind : {"names", "sandboxes"}) {
      const auto list = one.find(kind);
      if (list == one.end() || !list->is_array()) continue;
      for (const Json& name : *list) {
        if (!name.is_string()) continue;
        add((kind == std::string_view("names") ? "" : "paused sandbox ") + name.get<std::string>());
        named = true;
      }
    }
    if (!named) add("snapshot " + id);
  }
  return text;
}

class Report {
 public:
  Report(Session& session, Progress& progress) : session_(session), progress_(progress) {}

  Status take(const Json& event) {
    const std::string type = text_field(event, "type");
    if (type == "progress") {
      progress_.set_detail(bar(number_field(event, "bytes"), number_field(event, "total_bytes")));
      return {};
    }
    if (type == "damage") {
      damages_.push_back(event);
      return {};
    }
    if (type == "done") done_ = event;
    if (type == "error") return fail(answered_error(500, event.dump()));
    return {};  // also a later version's event
  }

  Result<int> finish() {
    if (!done_) {
      return fail(Code::kUnavailable, "the verification's end was not told",
                  "try again; the logs of the server and the agent ('stasis up' prints them) say more");
    }
    const auto damages = static_cast<uint64_t>(number_field(*done_, "damages"));
    if (session_.json()) {
      Json document = *done_;
      document.erase("type");
      for (Json& damage : damages_) damage.erase("type");
      document["damage"] = damages_;
      session_.print(document);
    } else {
      show(damages);
    }
    return damages == 0 ? kSuccess : kFailure;
  }

 private:
  void show(uint64_t damages) {
    std::ostream& out = session_.io().out;
    for (const Json& damage : damages_) {
      out << "damaged: " << printable(text_field(damage, "file"));
      const auto frame = damage.find("frame");
      if (frame != damage.end() && frame->is_number()) out << ", frame " << frame->dump();
      out << "\n  " << printable(text_field(damage, "message")) << "\n  needed by: " << printable(needed_by(damage))
          << '\n';
    }
    if (damages > damages_.size()) out << "... and " << damages - damages_.size() << " more\n";
    out << fmt::format("{:.0f} snapshots, {:.0f} layers, {:.0f} frames, {}: {}\n", number_field(*done_, "snapshots"),
                       number_field(*done_, "layers"), number_field(*done_, "frames"), size_field(*done_, "bytes"),
                       damages == 0 ? "all whole" : fmt::format("{} damaged", damages));
  }

  Session& session_;
  Progress& progress_;
  Json damages_ = Json::array();
  std::optional<Json> done_;
};

Result<int> verify(Session& session, const VerifyOptions& options) {
  if (options.all == !options.name.empty()) {
    return session.usage("verify needs the name of a snapshot, or --all", "stasis snapshot verify --all");
  }
  STASIS_ASSIGN(Client * client, session.client());
  Progress progress(session.io(), "verifying " + (options.all ? "every snapshot" : options.name));
  const std::string target =
      options.all ? "/v1/store/verify" : "/v1/snapshots/" + percent_encode(options.name) + "/verify";
  Report report(session, progress);
  Lines lines;
  STASIS_TRY(client->download(target, [&](std::string_view piece) {
    return lines.take(piece, [&](const Json& event) { return report.take(event); });
  }));
  progress.stop();
  return report.finish();
}

}  // namespace

void add_verify_command(CommandLine& line) {
  const auto options = std::make_shared<VerifyOptions>();
  CLI::App& command =
      add_command(line, *line.app.get_subcommand("snapshot"), "verify",
                  "Check every frame of memory and disk, and every part; exits with 1 if anything is damaged",
                  "stasis snapshot verify warm\n"
                  "stasis snapshot verify --all\n"
                  "stasis snapshot verify --all --json | jq .damages");
  command.add_option("NAME", options->name, "Snapshot, image, or the id of a snapshot");
  command.add_flag("--all", options->all, "Every image and snapshot of the host, also those of paused sandboxes");
  command.callback([&line, options] { line.action = [options](Session& s) { return verify(s, *options); }; });
}

}  // namespace stasis::cli
