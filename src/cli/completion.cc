#include "cli/completion.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "cli/command_line.h"

namespace stasis::cli {
namespace {

struct OptionWord {
  std::string word;  // "--json", "-q"
  std::string description;
  bool takes_value = false;
};

struct Word {
  std::string word;
  std::string description;
};

// A command by its path ("", "create", "snapshot create"), with what may follow it.
struct Level {
  std::string path;
  std::vector<Word> subcommands;
  std::vector<OptionWord> options;
};

// Shell words in single quotes: descriptions are ours, but may hold an apostrophe.
std::string shell_word(const std::string& text) {
  std::string result = "'";
  for (const char c : text) result += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return result + "'";
}

void collect(const CLI::App& app, const std::string& path, std::vector<Level>& levels) {
  Level level{path, {}, {}};
  for (const CLI::Option* option : app.get_options()) {
    const bool takes_value = option->get_items_expected_max() > 0;
    for (const std::string& name : option->get_lnames())
      level.options.push_back({"--" + name, option->get_description(), takes_value});
    for (const std::string& name : option->get_snames())
      level.options.push_back({"-" + name, option->get_description(), takes_value});
  }
  const auto subcommands = app.get_subcommands([](const CLI::App*) { return true; });
  for (const CLI::App* sub : subcommands) level.subcommands.push_back({sub->get_name(), sub->get_description()});
  levels.push_back(std::move(level));
  for (const CLI::App* sub : subcommands)
    collect(*sub, path.empty() ? sub->get_name() : path + " " + sub->get_name(), levels);
}

template <typename Words>
std::string joined(const Words& words) {
  std::string text;
  for (const auto& word : words) text += (text.empty() ? "" : " ") + word.word;
  return text;
}

// Shell code for bash that finds the command's path among the words typed, skipping options and their values. zsh has
// its own numbering of arrays, so it runs this through bashcompinit.
std::string bash_script(const std::vector<Level>& levels) {
  std::string with_value;
  std::string cases;
  for (const Level& level : levels) {
    for (const OptionWord& option : level.options) {
      if (option.takes_value && with_value.find("|" + option.word + "|") == std::string::npos)
        with_value += "|" + option.word + "|";
    }
    cases += "    " + shell_word(level.path) + ") commands=" + shell_word(joined(level.subcommands)) +
             " options=" + shell_word(joined(level.options)) + " ;;\n";
  }
  return "_stasis() {\n"
         "  local current=\"${COMP_WORDS[COMP_CWORD]}\" path= commands= options= word i\n"
         "  local takes_value=" +
         shell_word(with_value) +
         "\n"
         "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
         "    word=\"${COMP_WORDS[i]}\"\n"
         "    if [[ $takes_value == *\"|$word|\"* ]]; then ((i++)); continue; fi\n"
         "    if [[ $word == -* ]]; then continue; fi\n"
         "    case \"${path:+$path }$word\" in\n"
         "      " +
         [&] {
           std::string paths;
           for (const Level& level : levels) {
             if (!level.path.empty()) paths += (paths.empty() ? "" : "|") + shell_word(level.path);
           }
           return paths;
         }() +
         ") path=\"${path:+$path }$word\" ;;\n"
         "    esac\n"
         "  done\n"
         "  case \"$path\" in\n" +
         cases +
         "  esac\n"
         "  if [[ $current == -* || -z $commands ]]; then commands=\"$commands $options\"; fi\n"
         "  COMPREPLY=($(compgen -W \"$commands\" -- \"$current\"))\n"
         "}\n"
         "complete -o default -F _stasis stasis\n";
}

std::string zsh_script(const std::vector<Level>& levels) {
  return "#compdef stasis\nautoload -U +X bashcompinit && bashcompinit\n" + bash_script(levels);
}

// fish asks a condition before each suggestion: is the path typed so far this one?
std::string fish_script(const std::vector<Level>& levels) {
  std::string script = "complete -c stasis -f\n";
  for (const Level& level : levels) {
    std::string condition = "__fish_use_subcommand";
    if (!level.path.empty()) {
      condition.clear();
      size_t start = 0;
      while (start <= level.path.size()) {
        const size_t space = std::min(level.path.find(' ', start), level.path.size());
        condition +=
            (start == 0 ? "" : "; and ") + ("__fish_seen_subcommand_from " + level.path.substr(start, space - start));
        start = space + 1;
      }
    }
    for (const Word& sub : level.subcommands) {
      script += "complete -c stasis -n " + shell_word(condition) + " -a " + sub.word + " -d " +
                shell_word(sub.description) + "\n";
    }
    for (const OptionWord& option : level.options) {
      const bool is_long = option.word.starts_with("--");
      script += "complete -c stasis -n " + shell_word(condition) + (is_long ? " -l " : " -s ") +
                option.word.substr(is_long ? 2 : 1) + (option.takes_value ? " -r" : "") + " -d " +
                shell_word(option.description) + "\n";
    }
  }
  script += "complete -c stasis -n '__fish_seen_subcommand_from cp' -F\n";
  return script;
}

}  // namespace

Result<std::string> completion_script(const CLI::App& app, const std::string& shell) {
  std::vector<Level> levels;
  collect(app, "", levels);
  if (shell == "bash") return bash_script(levels);
  if (shell == "zsh") return zsh_script(levels);
  if (shell == "fish") return fish_script(levels);
  return fail(Code::kInvalidArgument, "there is no completion for the shell '" + shell + "'",
              "bash, zsh and fish are known");
}

void add_completion_command(CommandLine& line) {
  CLI::App& command = *line.app.add_subcommand("completion", "Print a completion script for a shell");
  command.footer(
      "Examples:\n"
      "  stasis completion bash > /etc/bash_completion.d/stasis\n"
      "  stasis completion zsh > ~/.zfunc/_stasis\n"
      "  stasis completion fish > ~/.config/fish/completions/stasis.fish");
  const auto shell = std::make_shared<std::string>();
  command.add_option("SHELL", *shell, "bash, zsh or fish")->required()->check(CLI::IsMember({"bash", "zsh", "fish"}));
  command.callback([&line, shell] {
    line.action = [&line, shell](Session& session) -> Result<int> {
      STASIS_ASSIGN(const std::string script, completion_script(line.app, *shell));
      session.io().out << script;
      return kSuccess;
    };
  });
}

}  // namespace stasis::cli
