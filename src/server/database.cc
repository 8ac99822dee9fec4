#include "server/database.h"

#include <sqlite3.h>

#include <memory>

namespace stasis::server {
namespace {

struct Finalize {
  void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};
using Statement = std::unique_ptr<sqlite3_stmt, Finalize>;

int bind(sqlite3_stmt* statement, int index, const Value& value) {
  if (const auto* number = std::get_if<int64_t>(&value)) return sqlite3_bind_int64(statement, index, *number);
  if (const auto* text = std::get_if<std::string>(&value)) {
    return sqlite3_bind_text64(statement, index, text->data(), text->size(), SQLITE_TRANSIENT, SQLITE_UTF8);
  }
  return sqlite3_bind_null(statement, index);
}

Code code_of(int result) {
  switch (result & 0xff) {
    case SQLITE_FULL:
      return Code::kResourceExhausted;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return Code::kDataLoss;
    case SQLITE_CONSTRAINT:
      return Code::kAlreadyExists;
    case SQLITE_BUSY:
      return Code::kUnavailable;
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
      return Code::kPermissionDenied;
    default:
      return Code::kInternal;
  }
}

}  // namespace

int64_t Row::integer(int column) const { return sqlite3_column_int64(statement_, column); }

std::string Row::text(int column) const {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
  return text == nullptr ? "" : std::string(text, static_cast<size_t>(sqlite3_column_bytes(statement_, column)));
}

Result<Database> Database::open(const Path& path, std::span<const char* const> migrations) {
  FileSystem& fs = real_file_system();
  if (!exists(fs, path)) STASIS_TRY_CONTEXT(fs.create(path), "make the database");  // SQLite would make it mode 0644
  sqlite3* handle = nullptr;
  const int result = sqlite3_open_v2(path.c_str(), &handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, nullptr);
  Database database(handle);
  if (result != SQLITE_OK) return fail(database.error(result, "open the database " + path.string()));
  sqlite3_extended_result_codes(handle, 1);
  sqlite3_busy_timeout(handle, 5000);
  STASIS_TRY_CONTEXT(database.migrate(migrations), "database " + path.string());
  return database;
}

Database::~Database() {
  if (handle_ != nullptr) sqlite3_close_v2(handle_);
}

Error Database::error(int code, std::string_view what) const {
  return {code_of(code), std::string(what) + ": " + (handle_ ? sqlite3_errmsg(handle_) : sqlite3_errstr(code))};
}

Result<int64_t> Database::run(std::string_view sql, const std::vector<Value>& values) {
  STASIS_TRY(query(sql, values, [](const Row&) {}));
  return sqlite3_changes64(handle_);
}

Status Database::query(std::string_view sql, const std::vector<Value>& values,
                       const std::function<void(const Row&)>& on_row) {
  sqlite3_stmt* raw = nullptr;
  int result = sqlite3_prepare_v2(handle_, sql.data(), static_cast<int>(sql.size()), &raw, nullptr);
  const Statement statement(raw);
  if (result != SQLITE_OK) return fail(error(result, "database statement"));
  for (size_t i = 0; i < values.size(); ++i) {
    result = bind(raw, static_cast<int>(i) + 1, values[i]);
    if (result != SQLITE_OK) return fail(error(result, "database value"));
  }
  while ((result = sqlite3_step(raw)) == SQLITE_ROW) on_row(Row(raw));
  if (result != SQLITE_DONE) return fail(error(result, "database"));
  return {};
}

Status Database::begin() {
  STASIS_TRY(run("BEGIN IMMEDIATE"));
  return {};
}

Status Database::commit() {
  STASIS_TRY(run("COMMIT"));
  return {};
}

void Database::rollback() {
  // After some errors (a full disk) SQLite has rolled back by itself.
  if (sqlite3_get_autocommit(handle_) == 0) (void)run("ROLLBACK");
}

Status Database::execute_script(const char* sql) {
  const int result = sqlite3_exec(handle_, sql, nullptr, nullptr, nullptr);
  if (result != SQLITE_OK) return fail(error(result, "database schema"));
  return {};
}

Status Database::migrate(std::span<const char* const> migrations) {
  int64_t version = 0;
  STASIS_TRY(query("PRAGMA user_version", {}, [&](const Row& row) { version = row.integer(0); }));
  const auto newest = static_cast<int64_t>(migrations.size());
  if (version < 0 || version > newest) {
    return fail(Code::kFailedPrecondition,
                "its version is " + std::to_string(version) + ", this program knows up to " + std::to_string(newest),
                "run the Stasis version that wrote it, or a newer one");
  }
  for (const char* pragma : {"PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA foreign_keys=ON"}) {
    STASIS_TRY(run(pragma));
  }
  for (; version < newest; ++version) {
    STASIS_TRY(begin());
    Status done = execute_script(migrations[static_cast<size_t>(version)]);
    if (done) done = execute_script(("PRAGMA user_version=" + std::to_string(version + 1)).c_str());
    if (done) done = commit();
    if (!done) {
      rollback();
      return done;
    }
  }
  return {};
}

}  // namespace stasis::server
