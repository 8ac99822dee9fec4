// snapshot retention set, ls, rm.
#include <memory>

#include "cli/command_line.h"
#include "cli/progress.h"
#include "cli/span_of_time.h"
#include "cli/table.h"

namespace stasis::cli {
namespace {

struct RetentionOptions {
  std::string sandbox;
  std::string template_name;
  uint32_t keep_last = 0;
  std::string max_age;
};

Result<std::string> target_of(Session& session, const RetentionOptions& options) {
  if (options.sandbox.empty() == options.template_name.empty()) {
    return session.usage("a policy is of one sandbox or of one template", "give --sandbox ID or --template NAME");
  }
  return "/v1/retention/" + (options.sandbox.empty() ? "template/" + percent_encode(options.template_name)
                                                     : "sandbox/" + percent_encode(options.sandbox));
}

std::string limit_text(const Json& policy, const char* key, bool span) {
  const double limit = number_field(policy, key);
  if (limit == 0) return "";
  return span ? age_text(static_cast<int64_t>(limit)) : std::to_string(static_cast<int64_t>(limit));
}

void print_policies(Session& session, const std::vector<Json>& policies) {
  Table table({{"OF"}, {"TARGET"}, {"KEEP LAST", true}, {"MAX AGE", true}});
  for (const Json& policy : policies) {
    table.add({text_field(policy, "scope"), text_field(policy, "target"), limit_text(policy, "keep_last", false),
               limit_text(policy, "max_age_sec", true)});
  }
  table.print(session.io().out);
}

Result<int> set(Session& session, const RetentionOptions& options) {
  STASIS_ASSIGN(const std::string target, target_of(session, options));
  Json body = Json::object();
  if (options.keep_last > 0) body["keep_last"] = options.keep_last;
  if (!options.max_age.empty()) {
    const auto seconds = parse_span_of_time(options.max_age);
    if (!seconds) return session.usage(seconds.error().message, seconds.error().remedy);
    body["max_age_sec"] = *seconds;
  }
  if (body.empty()) return session.usage("the policy has no limit", "give --keep-last N, --max-age AGE or both");
  STASIS_ASSIGN(Client * client, session.client());
  STASIS_ASSIGN(const Json policy, client->call("PUT", target, body));
  if (session.json()) {
    session.print(policy);
  } else {
    print_policies(session, {policy});
  }
  return kSuccess;
}

Result<int> list(Session& session) {
  STASIS_ASSIGN(Client * client, session.client());
  STASIS_ASSIGN(const Json answer, client->call("GET", "/v1/retention"));
  if (session.json()) {
    session.print(answer);
    return kSuccess;
  }
  const auto found = answer.find("policies");
  if (found == answer.end() || !found->is_array() || found->empty()) {
    session.io().out << "no policies: every snapshot is kept until it is deleted\n";
  } else {
    print_policies(session, found->get<std::vector<Json>>());
  }
  return kSuccess;
}

Result<int> remove(Session& session, const RetentionOptions& options) {
  STASIS_ASSIGN(const std::string target, target_of(session, options));
  STASIS_ASSIGN(Client * client, session.client());
  STASIS_TRY(client->call("DELETE", target));
  if (session.json()) {
    session.print({{"removed", true}});
  } else {
    session.io().out << "the policy is gone: every snapshot of it is kept\n";
  }
  return kSuccess;
}

void add_target(CLI::App& command, RetentionOptions& options) {
  command.add_option("--sandbox", options.sandbox, "Snapshots taken of this sandbox");
  command.add_option("--template", options.template_name, "Snapshots taken of all sandboxes made from this template");
}

}  // namespace

void add_retention_commands(CommandLine& line) {
  CLI::App& group =
      *line.app.get_subcommand("snapshot")
           ->add_subcommand("retention",
                            "How many snapshots are kept, and for how long; those that sandboxes use wait");
  group.require_subcommand(1);
  group.footer(
      "Examples:\n  stasis snapshot retention set --template base --keep-last 10\n  stasis snapshot retention ls");

  const auto options = std::make_shared<RetentionOptions>();
  CLI::App& set_command = add_command(line, group, "set", "Set the policy of a sandbox or a template",
                                      "stasis snapshot retention set --sandbox k3v9x0c2m5n8q1w4e7r6 --keep-last 3\n"
                                      "stasis snapshot retention set --template base --max-age 7d");
  add_target(set_command, *options);
  set_command.add_option("--keep-last", options->keep_last, "Keep so many, the newest")->check(CLI::PositiveNumber);
  set_command.add_option("--max-age", options->max_age, "Keep none that is older: 90s, 15m, 2h, 7d");
  set_command.callback([&line, options] { line.action = [options](Session& s) { return set(s, *options); }; });

  CLI::App& list_command = add_command(line, group, "ls", "List the policies", "stasis snapshot retention ls");
  list_command.callback([&line] { line.action = [](Session& s) { return list(s); }; });

  CLI::App& remove_command = add_command(line, group, "rm", "Remove a policy: everything is kept again",
                                         "stasis snapshot retention rm --template base");
  add_target(remove_command, *options);
  remove_command.callback([&line, options] { line.action = [options](Session& s) { return remove(s, *options); }; });
}

}  // namespace stasis::cli
