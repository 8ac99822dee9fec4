// SQLite behind one small owning type. Not thread-safe: Store (store.h) holds the lock. Values are bound, never pasted
// into the text. Errors: a full disk is kResourceExhausted, a damaged file kDataLoss, a violated constraint
// kAlreadyExists, the rest kInternal.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/file_system.h"
#include "base/result.h"

struct sqlite3;
struct sqlite3_stmt;

namespace stasis::server {

using Value = std::variant<std::nullptr_t, int64_t, std::string>;

// One row of an answer; valid only inside the callback that gets it.
class Row {
 public:
  explicit Row(sqlite3_stmt* statement) : statement_(statement) {}
  int64_t integer(int column) const;
  std::string text(int column) const;  // empty for NULL

 private:
  sqlite3_stmt* statement_;
};

class Database {
 public:
  // Opens or creates the file (mode 0600), checks its version and runs the migrations that it lacks: migrations[n]
  // leads from version n to n + 1. A newer version is kFailedPrecondition, and nothing was changed.
  static Result<Database> open(const Path& path, std::span<const char* const> migrations);

  Database(Database&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Database& operator=(Database&&) = delete;
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;
  ~Database();

  // Runs one statement; how many rows it changed.
  Result<int64_t> run(std::string_view sql, const std::vector<Value>& values = {});
  Status query(std::string_view sql, const std::vector<Value>& values, const std::function<void(const Row&)>& on_row);

  Status begin();  // takes the write lock at once
  Status commit();
  void rollback();

 private:
  explicit Database(sqlite3* handle) : handle_(handle) {}
  Status migrate(std::span<const char* const> migrations);
  Status execute_script(const char* sql);
  Error error(int code, std::string_view what) const;

  sqlite3* handle_ = nullptr;
};

}  // namespace stasis::server
