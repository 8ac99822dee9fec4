#include "guest/settings.h"

#include <filesystem>

#include "guest/text.h"

namespace stasis::guest {

bool Settings::replace_token(const std::optional<std::string>& token, const std::vector<std::string>& proofs) {
  std::lock_guard lock(mutex_);
  bool proven = token_.empty();
  for (const std::string& proof : proofs) proven = proven || equal_secrets(proof, token_);
  if (proven && token && !token->empty()) token_ = *token;
  return proven;
}

bool Settings::token_matches(std::string_view given) const {
  std::lock_guard lock(mutex_);
  return token_.empty() || equal_secrets(given, token_);
}

std::string Settings::token() const {
  std::lock_guard lock(mutex_);
  return token_;
}

void Settings::merge_environment(const std::map<std::string, std::string>& variables) {
  std::lock_guard lock(mutex_);
  for (const auto& [name, value] : variables) environment_[name] = value;
}

std::map<std::string, std::string> Settings::environment() const {
  std::lock_guard lock(mutex_);
  return environment_;
}

void Settings::set_default_user(const std::string& name) {
  std::lock_guard lock(mutex_);
  default_user_ = name;
}

void Settings::set_default_workdir(const std::string& path) {
  std::lock_guard lock(mutex_);
  default_workdir_ = path;
}

std::string Settings::default_user() const {
  std::lock_guard lock(mutex_);
  return default_user_;
}

Result<User> Settings::user(std::string_view name) const {
  std::string wanted = name.empty() ? default_user() : std::string(name);
  auto found = users_.find(wanted);
  if (!found) return fail(Code::kUnauthenticated, "invalid username: '" + wanted + "'");
  return *found;
}

Result<User> Settings::user_of(const Exchange& exchange) const {
  std::string header = exchange.header("Authorization");
  if (header.empty()) return user("");
  if (!lower_case(header).starts_with("basic ")) {
    return fail(Code::kUnauthenticated, "Authorization is not of the form 'Basic base64(user:)'");
  }
  auto pair = base64_decode(std::string_view(header).substr(6));
  if (!pair) return fail(Code::kUnauthenticated, "Authorization holds no valid base64");
  return user(std::string_view(*pair).substr(0, pair->find(':')));
}

std::string Settings::resolve_path(const User& user, std::string_view path) const {
  std::filesystem::path home = user.home.empty() ? "/" : user.home;
  std::filesystem::path out;
  if (path.empty()) {
    std::lock_guard lock(mutex_);
    out = default_workdir_.empty() ? home : home / default_workdir_;
  } else if (path == "~" || path.starts_with("~/")) {
    out = home / path.substr(std::min<size_t>(path.size(), 2));
  } else {
    out = home / path;
  }
  std::string text = out.lexically_normal().string();
  if (text.size() > 1 && text.back() == '/') text.pop_back();
  return text;
}

std::string url_signature(std::string_view path, std::string_view operation, std::string_view user,
                          std::string_view token, std::optional<uint64_t> expiration) {
  std::string text(path);
  text.append(":").append(operation).append(":").append(user).append(":").append(token);
  if (expiration) text.append(":").append(std::to_string(*expiration));
  auto digest = sha256(text);
  std::string encoded = base64_encode({reinterpret_cast<const char*>(digest.data()), digest.size()});
  while (!encoded.empty() && encoded.back() == '=') encoded.pop_back();
  return "v1_" + encoded;
}

}  // namespace stasis::guest
