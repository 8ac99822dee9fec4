// Text for people: tables, sizes, ages. Everything that came from outside goes through printable(), so that no name or
// message can move the cursor or recolour a terminal.
#pragma once

#include <cstdint>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

namespace stasis::cli {

// The text with control characters and bytes that are not UTF-8 replaced by '?'.
std::string printable(std::string_view text);

struct Column {
  std::string title;
  bool right = false;  // numbers
};

class Table {
 public:
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  // One cell per column; missing ones are empty, an empty one is shown as "-".
  void add(std::vector<std::string> cells);
  bool empty() const { return rows_.empty(); }
  void print(std::ostream& out) const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

std::string size_text(uint64_t bytes);           // "512 B", "1.5 MiB", "256 MiB"
std::string duration_text(double milliseconds);  // "0.8 ms", "35 ms", "2.1 s", "3 min"
std::string age_text(int64_t seconds);           // "12 s", "5 min", "3 h", "9 d"

// Unix seconds of an RFC 3339 time in UTC ("2026-11-24T22:31:05.123Z").
std::optional<int64_t> parse_rfc3339(std::string_view text);

}  // namespace stasis::cli
