// create, ls, pause, resume, rollback, rm.
#include <memory>

#include "cli/command_line.h"
#include "cli/progress.h"
#include "cli/sandbox_view.h"

namespace stasis::cli {
namespace {

constexpr int kMaxPages = 10'000;

struct RestoreOptions {
  std::string way;
  unsigned load_mib_per_s = 0;

  void add_to(Json& body) const {
    if (!way.empty()) body["restore"] = way;
    if (load_mib_per_s != 0) body["background_load_mib_per_s"] = load_mib_per_s;
  }
};

struct CreateOptions {
  std::string template_name;
  unsigned vcpus = 0;
  unsigned memory_mb = 0;
  unsigned disk_mb = 0;
  bool cold = false;
  RestoreOptions restore;
  unsigned timeout_sec = 0;
  std::vector<std::string> env;
  std::vector<std::string> metadata;
  std::string idempotency_key;
  bool quiet = false;
};

struct ListOptions {
  std::vector<std::string> states;
  std::string template_name;
  std::vector<std::string> metadata;
  bool all = false;
  bool quiet = false;
};

struct IdsOptions {
  std::vector<std::string> ids;
  unsigned timeout_sec = 0;
  RestoreOptions restore;
  bool all = false;
};

struct RollbackOptions {
  std::string id;
  std::string snapshot;
  unsigned timeout_sec = 0;
  RestoreOptions restore;
};

// Only what was said: the server knows the defaults, and a snapshot has its own.
Result<Json> create_body(const CreateOptions& options) {
  Json body = Json::object();
  if (!options.template_name.empty()) body["template"] = options.template_name;
  if (options.vcpus != 0) body["vcpus"] = options.vcpus;
  if (options.memory_mb != 0) body["memory_mb"] = options.memory_mb;
  if (options.disk_mb != 0) body["disk_mb"] = options.disk_mb;
  if (options.cold) body["cold"] = true;
  options.restore.add_to(body);
  if (options.timeout_sec != 0) body["timeout_sec"] = options.timeout_sec;
  STASIS_ASSIGN(Json env, pairs_object(options.env, "--env"));
  STASIS_ASSIGN(Json metadata, pairs_object(options.metadata, "--metadata"));
  if (!env.empty()) body["env"] = std::move(env);
  if (!metadata.empty()) body["metadata"] = std::move(metadata);
  return body;
}

Result<int> create(Session& session, const CreateOptions& options) {
  const auto body = create_body(options);
  if (!body) return session.usage(body.error().message, body.error().remedy);
  STASIS_ASSIGN(Client * client, session.client());
  Headers headers;
  if (!options.idempotency_key.empty()) headers.emplace_back("Idempotency-Key", options.idempotency_key);
  Progress progress(session.io(), "creating a sandbox");
  STASIS_ASSIGN(const Json sandbox, client->call("POST", "/v1/sandboxes", *body, headers));
  progress.stop();
  if (options.quiet) {
    session.io().out << text_field(sandbox, "id") << '\n';
  } else if (session.json()) {
    session.print(sandbox);
  } else {
    session.io().out << printable(created_line(sandbox)) << '\n';
  }
  return kSuccess;
}

Result<std::string> list_query(const ListOptions& options) {
  std::string query;
  const auto add = [&](const std::string& key, const std::string& value) {
    query += (query.empty() ? "?" : "&") + percent_encode(key) + "=" + percent_encode(value);
  };
  std::string states;
  for (const std::string& state : options.states) states += (states.empty() ? "" : ",") + state;
  if (!states.empty()) add("state", states);
  if (!options.template_name.empty()) add("template", options.template_name);
  STASIS_ASSIGN(const Json metadata, pairs_object(options.metadata, "--metadata"));
  for (const auto& [key, value] : metadata.items()) add("metadata." + key, value.get<std::string>());
  return query;
}

// Every page of the list, without stopped sandboxes unless they were asked for.
Result<Json> list_sandboxes(Client& client, const std::string& query, bool with_stopped) {
  Json all = Json::array();
  std::string token;
  for (int page = 0; page < kMaxPages; ++page) {
    std::string target = "/v1/sandboxes" + query;
    if (!token.empty()) target += (query.empty() ? "?" : "&") + ("page_token=" + percent_encode(token));
    STASIS_ASSIGN(const Json answer, client.call("GET", target));
    const auto sandboxes = answer.is_object() ? answer.find("sandboxes") : answer.end();
    if (!answer.is_object() || sandboxes == answer.end() || !sandboxes->is_array()) {
      return fail(Code::kInternal, "the server's answer has no list of sandboxes",
                  "is that a Stasis server? Check --url");
    }
    for (const Json& sandbox : *sandboxes) {
      if (with_stopped || text_field(sandbox, "state") != "stopped") all.push_back(sandbox);
    }
    token = text_field(answer, "next_page_token");
    if (token.empty()) return all;
  }
  return fail(Code::kInternal, "the server's list of sandboxes does not end");
}

Result<int> list(Session& session, const ListOptions& options) {
  const auto query = list_query(options);
  if (!query) return session.usage(query.error().message, query.error().remedy);
  STASIS_ASSIGN(Client * client, session.client());
  Progress progress(session.io(), "listing sandboxes");
  STASIS_ASSIGN(Json sandboxes, list_sandboxes(*client, *query, options.all || !options.states.empty()));
  progress.stop();
  if (options.quiet) {
    for (const Json& sandbox : sandboxes) session.io().out << text_field(sandbox, "id") << '\n';
    return kSuccess;
  }
  if (session.json()) {
    session.print({{"sandboxes", std::move(sandboxes)}});
    return kSuccess;
  }
  Table table = sandbox_table();
  for (const Json& sandbox : sandboxes) add_sandbox(table, sandbox);
  if (table.empty()) {
    session.io().out << "no sandboxes; 'stasis create' makes one\n";
  } else {
    table.print(session.io().out);
  }
  return kSuccess;
}

// What is done to each of several sandboxes: the answer, and the line that says it to people.
struct OneByOne {
  std::string doing;  // "pausing"
  std::function<Result<Json>(Client&, const std::string& id)> act;
  std::string (*line)(const Json&);
};

void show(Session& session, const Json& answer, std::string (*line)(const Json&)) {
  if (session.json()) {
    session.print(answer);
  } else {
    session.io().out << printable(line(answer)) << '\n' << std::flush;
  }
}

// An error is reported and the others still have their turn.
Result<int> for_each_id(Session& session, const std::vector<std::string>& ids, const OneByOne& what) {
  STASIS_ASSIGN(Client * client, session.client());
  int status = kSuccess;
  for (const std::string& id : ids) {
    Progress progress(session.io(), what.doing + " " + id);
    const auto outcome = what.act(*client, id);
    progress.stop();
    if (outcome) {
      show(session, *outcome, what.line);
      continue;
    }
    session.report(outcome.error());
    status = session.status_of(outcome.error());
    if (status == kNotReachable) break;
  }
  return status;
}

// POST /v1/sandboxes/ID/...
std::function<Result<Json>(Client&, const std::string&)> posting(std::string action, Json body) {
  return [action = std::move(action), body = std::move(body)](Client& client, const std::string& id) {
    return client.call("POST", sandbox_path(id, action), body);
  };
}

Result<int> pause(Session& session, const IdsOptions& options) {
  return for_each_id(session, options.ids, {"pausing", posting("/pause", Json::object()), paused_line});
}

Result<int> resume(Session& session, const IdsOptions& options) {
  Json body = Json::object();
  if (options.timeout_sec != 0) body["timeout_sec"] = options.timeout_sec;
  options.restore.add_to(body);
  return for_each_id(session, options.ids, {"resuming", posting("/resume", std::move(body)), resumed_line});
}

Result<int> rollback(Session& session, const RollbackOptions& options) {
  Json body = {{"snapshot", options.snapshot}};
  if (options.timeout_sec != 0) body["timeout_sec"] = options.timeout_sec;
  options.restore.add_to(body);
  return for_each_id(session, {options.id}, {"rolling back", posting("/rollback", std::move(body)), resumed_line});
}

Result<int> remove(Session& session, const IdsOptions& options) {
  std::vector<std::string> ids = options.ids;
  if (options.all != ids.empty()) return session.usage("rm takes either ids or --all", "see 'stasis rm --help'");
  if (options.all) {
    STASIS_ASSIGN(Client * client, session.client());
    STASIS_ASSIGN(const Json sandboxes, list_sandboxes(*client, "", false));
    for (const Json& sandbox : sandboxes) ids.push_back(text_field(sandbox, "id"));
  }
  const auto destroy = [](Client& client, const std::string& id) -> Result<Json> {
    STASIS_TRY(client.call("DELETE", sandbox_path(id)));
    return Json{{"id", id}, {"removed", true}};
  };
  return for_each_id(session, ids,
                     {"destroying", destroy, [](const Json& gone) { return text_field(gone, "id") + " is gone"; }});
}

void add_restore(CLI::App& command, RestoreOptions& restore) {
  command
      .add_option(
          "--restore", restore.way,
          "How all of memory comes back: mapped or uffd (default: mapped where it can, in part where half of it can)")
      ->check(CLI::IsMember({"uffd", "mapped"}));
  command
      .add_option("--load", restore.load_mib_per_s,
                  "Load all of its memory in the background, so many MiB a second (default: only what is touched)")
      ->check(CLI::PositiveNumber);
}

void add_create(CommandLine& line) {
  CLI::App& command =
      add_command(line, line.app, "create", "Create a sandbox from a template and wait until it answers",
                  "stasis create\n"
                  "stasis create --template warm --timeout 600 --metadata job=42\n"
                  "id=$(stasis create -q --vcpus 2 --memory 512)");
  const auto options = std::make_shared<CreateOptions>();
  command.add_option("-t,--template", options->template_name, "Image or snapshot to start from (default: base)");
  command.add_option("--vcpus", options->vcpus, "Number of virtual CPUs")->check(CLI::PositiveNumber);
  command.add_option("--memory", options->memory_mb, "Memory in MiB")->check(CLI::PositiveNumber);
  command.add_option("--disk", options->disk_mb, "Disk in MiB")->check(CLI::PositiveNumber);
  command.add_flag("--cold", options->cold, "Boot the image, even if the host has kept it booted");
  add_restore(command, options->restore);
  command.add_option("--timeout", options->timeout_sec, "Seconds after which it is destroyed (default: never)");
  add_repeated(command, "-e,--env", options->env, "KEY=VALUE for every command in it; may be repeated");
  add_repeated(command, "-m,--metadata", options->metadata, "KEY=VALUE kept with it, to find it by; may be repeated");
  command.add_option("--idempotency-key", options->idempotency_key, "Makes repeating this very call safe");
  command.add_flag("-q,--quiet", options->quiet, "Print the id only");
  command.callback(
      [&line, options] { line.action = [options](Session& session) { return create(session, *options); }; });
}

void add_list(CommandLine& line) {
  CLI::App& command = add_command(line, line.app, "ls", "List sandboxes",
                                  "stasis ls\n"
                                  "stasis ls --state paused --metadata job=42\n"
                                  "stasis ls --json | jq -r '.sandboxes[].id'");
  const auto options = std::make_shared<ListOptions>();
  command
      .add_option(
          "-s,--state", options->states,
          "Only in these states: pending, starting, running, pausing, paused, resuming, stopping, stopped, error")
      ->delimiter(',')
      ->allow_extra_args(false);
  command.add_option("-t,--template", options->template_name, "Only those made from this template");
  add_repeated(command, "-m,--metadata", options->metadata, "Only those with this KEY=VALUE; may be repeated");
  command.add_flag("-a,--all", options->all, "Also the stopped ones");
  command.add_flag("-q,--quiet", options->quiet, "Print the ids only");
  command.callback([&line, options] { line.action = [options](Session& session) { return list(session, *options); }; });
}

void add_state_commands(CommandLine& line) {
  const auto pausing = std::make_shared<IdsOptions>();
  CLI::App& pause_command = add_command(
      line, line.app, "pause", "Freeze sandboxes: memory, disk and devices go to files, and everything is freed",
      "stasis pause k3v9x0c2m5n8q1w4e7r6\n"
      "stasis pause $(stasis ls -q --state running)");
  pause_command.add_option("ID", pausing->ids, "Sandboxes")->required();
  pause_command.callback([&line, pausing] { line.action = [pausing](Session& s) { return pause(s, *pausing); }; });

  const auto resuming = std::make_shared<IdsOptions>();
  CLI::App& resume_command = add_command(
      line, line.app, "resume", "Thaw paused sandboxes: they go on where they stopped, memory is loaded as needed",
      "stasis resume k3v9x0c2m5n8q1w4e7r6\n"
      "stasis resume --timeout 600 k3v9x0c2m5n8q1w4e7r6");
  resume_command.add_option("ID", resuming->ids, "Sandboxes")->required();
  resume_command.add_option("--timeout", resuming->timeout_sec, "Seconds from now after which it is destroyed");
  add_restore(resume_command, resuming->restore);
  resume_command.callback([&line, resuming] { line.action = [resuming](Session& s) { return resume(s, *resuming); }; });

  const auto going_back = std::make_shared<RollbackOptions>();
  CLI::App& rollback_command =
      add_command(line, line.app, "rollback",
                  "Take a running or paused sandbox back to a snapshot of it: its memory and disk of then, the same id",
                  "stasis snapshot create k3v9x0c2m5n8q1w4e7r6 before-upgrade\n"
                  "stasis rollback k3v9x0c2m5n8q1w4e7r6 before-upgrade");
  rollback_command.add_option("ID", going_back->id, "Sandbox")->required();
  rollback_command.add_option("SNAPSHOT", going_back->snapshot, "Snapshot that was taken of it")->required();
  rollback_command.add_option("--timeout", going_back->timeout_sec, "Seconds from now after which it is destroyed");
  add_restore(rollback_command, going_back->restore);
  rollback_command.callback(
      [&line, going_back] { line.action = [going_back](Session& s) { return rollback(s, *going_back); }; });

  const auto removing = std::make_shared<IdsOptions>();
  CLI::App& remove_command = add_command(line, line.app, "rm", "Destroy sandboxes, whatever state they are in",
                                         "stasis rm k3v9x0c2m5n8q1w4e7r6\n"
                                         "stasis rm --all");
  remove_command.add_option("ID", removing->ids, "Sandboxes");
  remove_command.add_flag("--all", removing->all, "Every sandbox");
  remove_command.callback([&line, removing] { line.action = [removing](Session& s) { return remove(s, *removing); }; });
}

}  // namespace

void add_sandbox_commands(CommandLine& line) {
  add_create(line);
  add_list(line);
  add_state_commands(line);
}

}  // namespace stasis::cli
