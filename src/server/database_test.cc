#include "server/database.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <array>

#include "base/testing/temp_dir.h"
#include "server/store.h"

namespace stasis::server {
namespace {

using stasis::testing::TempDir;

constexpr std::array<const char*, 1> kOne = {"CREATE TABLE one (x INTEGER NOT NULL UNIQUE) STRICT"};
constexpr std::array<const char*, 2> kTwo = {kOne[0],
                                             "CREATE TABLE two (y TEXT) STRICT; INSERT INTO two VALUES ('new')"};
constexpr std::array<const char*, 2> kBroken = {kOne[0], "CREATE TABLE two (y TEXT) STRICT; NONSENSE"};

std::string text_of(Database& database, std::string_view sql) {
  std::string text;
  const Status done = database.query(sql, {}, [&](const Row& row) { text += row.text(0) + ";"; });
  return done ? text : "error";
}

TEST(DatabaseTest, MigratesAndKeepsWhatThereWas) {
  const TempDir dir;
  const Path path = dir.path() / "db";
  {
    auto database = Database::open(path, kOne);
    ASSERT_TRUE(database) << database.error().message;
    ASSERT_TRUE(database->run("INSERT INTO one VALUES (?)", {int64_t{7}}));
  }
  auto database = Database::open(path, kTwo);
  ASSERT_TRUE(database) << database.error().message;
  EXPECT_EQ(text_of(*database, "SELECT x FROM one"), "7;");
  EXPECT_EQ(text_of(*database, "SELECT y FROM two"), "new;");
  EXPECT_EQ(text_of(*database, "PRAGMA user_version"), "2;");
  EXPECT_EQ(text_of(*database, "PRAGMA journal_mode"), "wal;");
  EXPECT_EQ(text_of(*database, "PRAGMA synchronous"), "2;");
}

TEST(DatabaseTest, ANewerVersionIsRefusedAndNothingChanges) {
  const TempDir dir;
  const Path path = dir.path() / "db";
  ASSERT_TRUE(Database::open(path, kTwo));
  const auto refused = Database::open(path, kOne);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kFailedPrecondition);
  EXPECT_NE(refused.error().remedy, "");
  auto again = Database::open(path, kTwo);
  ASSERT_TRUE(again);
  EXPECT_EQ(text_of(*again, "PRAGMA user_version"), "2;");
}

TEST(DatabaseTest, AMigrationThatFailsLeavesTheOldVersionWhole) {
  const TempDir dir;
  const Path path = dir.path() / "db";
  ASSERT_TRUE(Database::open(path, kOne));
  EXPECT_FALSE(Database::open(path, kBroken));
  auto old = Database::open(path, kOne);
  ASSERT_TRUE(old) << old.error().message;
  EXPECT_EQ(text_of(*old, "SELECT name FROM sqlite_master WHERE name = 'two'"), "");
}

TEST(DatabaseTest, IsForItsOwnerOnly) {
  const TempDir dir;
  ASSERT_TRUE(Database::open(dir.path() / "db", kOne));
  struct stat info {};
  ASSERT_EQ(::stat((dir.path() / "db").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST(DatabaseTest, SomethingElseIsDataLoss) {
  const TempDir dir;
  const Path path = dir.path() / "db";
  ASSERT_TRUE(publish_file(real_file_system(), path, std::string(8192, 'x')));
  const auto opened = Database::open(path, kOne);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Code::kDataLoss);
}

TEST(DatabaseTest, AFullDatabaseSaysSoAndGoesOn) {
  const TempDir dir;
  auto database = Database::open(dir.path() / "db", kTwo);
  ASSERT_TRUE(database);
  ASSERT_TRUE(database->run("PRAGMA max_page_count=1"));  // SQLite takes the present size
  const auto full = database->run("INSERT INTO two VALUES (?)", {std::string(1 << 20, 'x')});
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code, Code::kResourceExhausted);
  ASSERT_TRUE(database->run("PRAGMA max_page_count=100000"));
  EXPECT_TRUE(database->run("INSERT INTO two VALUES (?)", {std::string(1 << 20, 'x')}));
}

TEST(DatabaseTest, AViolatedConstraintIsAlreadyExists) {
  const TempDir dir;
  auto database = Database::open(dir.path() / "db", kOne);
  ASSERT_TRUE(database);
  ASSERT_TRUE(database->run("INSERT INTO one VALUES (1)"));
  EXPECT_EQ(database->run("INSERT INTO one VALUES (1)").error().code, Code::kAlreadyExists);
}

TEST(StoreTest, AnErrorUndoesTheWholeTransaction) {
  const TempDir dir;
  auto store = Store::open(dir.path() / "db");
  ASSERT_TRUE(store) << store.error().message;
  const Status failed = (*store)->write([](Tables& tables) -> Status {
    STASIS_TRY(tables.orphans.release("a"));
    return fail(Code::kAborted, "changed my mind");
  });
  EXPECT_EQ(failed.error().message, "changed my mind");
  const auto ids = (*store)->write([](Tables& tables) { return tables.orphans.unreferenced(); });
  ASSERT_TRUE(ids);
  EXPECT_TRUE(ids->empty());
}

}  // namespace
}  // namespace stasis::server
