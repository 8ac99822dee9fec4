#include "cli/svg.h"

#include <fmt/format.h>

#include <algorithm>

#include "cli/local_file.h"
#include "cli/session.h"
#include "cli/svg_shapes.h"
#include "cli/table.h"

namespace stasis::cli {
namespace {

constexpr int kColumns = 64;
constexpr int kCell = 10;
constexpr int kLine = 18;
constexpr int kMargin = 20;
constexpr const char* kZeros = "#eeeeee";

// From blue, the oldest, to red, the newest.
std::string colour(size_t index, size_t count) {
  const double share = count > 1 ? static_cast<double>(index) / static_cast<double>(count - 1) : 0;
  return fmt::format("hsl({:.0f},70%,{:.0f}%)", 220 - 220 * share, 45 + 10 * share);
}

std::vector<size_t> cells_of(const Json& space, size_t layers) {
  std::vector<size_t> cells;
  const auto found = space.find("cells");
  if (found == space.end() || !found->is_array()) return cells;
  for (const Json& cell : *found) {
    const int64_t layer = cell.is_number_integer() ? cell.get<int64_t>() : 0;
    cells.push_back(static_cast<size_t>(std::clamp<int64_t>(layer, 0, static_cast<int64_t>(layers))));
  }
  return cells;
}

// Cells of one colour that follow each other in a row are one rectangle.
std::string grid(const std::vector<size_t>& cells, size_t layers, int top) {
  std::string body;
  for (size_t i = 0; i < cells.size();) {
    const size_t column = i % kColumns;
    size_t end = i + 1;
    while (end < cells.size() && end % kColumns != 0 && cells[end] == cells[i]) ++end;
    body +=
        svg_rectangle(kMargin + static_cast<int>(column) * kCell, top + static_cast<int>(i / kColumns) * kCell,
                      static_cast<int>(end - i) * kCell, kCell, cells[i] == 0 ? kZeros : colour(cells[i] - 1, layers));
    i = end;
  }
  return body;
}

// One space; moves `top` behind it.
std::string space_picture(const Json& space, int& top) {
  static const Json none = Json::array();
  const auto found = space.find("layers");
  const Json& layers = found != space.end() && found->is_array() ? *found : none;
  std::string body =
      svg_text(kMargin, top + 12,
               fmt::format("{}: {}, generation {:.0f}, {:.0f} extents, fragmentation {:.4f}", text_field(space, "name"),
                           size_field(space, "size"), number_field(space, "generation"), number_field(space, "extents"),
                           number_field(space, "fragmentation")),
               " font-weight=\"bold\"");
  top += kLine;
  const auto cells = cells_of(space, layers.size());
  body += grid(cells, layers.size(), top);
  top += (static_cast<int>(cells.size()) + kColumns - 1) / kColumns * kCell + kLine / 2;
  const auto legend = [&](const std::string& fill, const std::string& text) {
    body += svg_rectangle(kMargin, top, 12, 12, fill) + svg_text(kMargin + kLine, top + 11, text);
    top += kLine;
  };
  legend(kZeros, "zeros, " + size_field(space, "zero_bytes"));
  for (size_t i = 0; i < layers.size(); ++i) {
    const Json& layer = layers[i];
    legend(colour(i, layers.size()),
           fmt::format("generation {:.0f}, {} of it here, layer {}", number_field(layer, "generation"),
                       size_field(layer, "mapped_bytes"), text_field(layer, "layer_id")));
  }
  top += kLine;
  return body;
}

}  // namespace

std::string spaces_svg(const Json& stats, const std::string& title) {
  int top = kMargin;
  std::string body = svg_text(kMargin, top + 12, title, " font-size=\"16\"");
  top += 2 * kLine;
  if (const auto spaces = stats.find("spaces"); spaces != stats.end() && spaces->is_array()) {
    for (const Json& space : *spaces) body += space_picture(space, top);
  }
  return svg_document(kColumns * kCell + 2 * kMargin, top, body);
}

std::string tree_svg(const std::vector<TreeLine>& lines) {
  constexpr int kIndent = 24;
  constexpr int kRow = 26;
  std::string body;
  int width = 0;
  std::vector<int> last_at;  // the row of the last node of each depth: the one that the next deeper ones hang from
  for (size_t i = 0; i < lines.size(); ++i) {
    const TreeLine& line = lines[i];
    const int depth = static_cast<int>(std::min<size_t>(line.depth, 200));
    const int x = kMargin + depth * kIndent;
    const int y = kMargin + static_cast<int>(i) * kRow;
    if (depth > 0 && last_at.size() >= static_cast<size_t>(depth)) {
      const int from = last_at[static_cast<size_t>(depth) - 1];
      body += fmt::format("<path d=\"M{0} {1}V{2}H{3}\" fill=\"none\" stroke=\"#999999\"/>\n", x - kIndent + 6,
                          from + 12, y + 6, x);
    }
    last_at.resize(static_cast<size_t>(depth) + 1);
    last_at.back() = y;
    body += svg_rectangle(x, y, 12, 12, line.exists ? colour(static_cast<size_t>(depth), 8) : kZeros);
    body += svg_text(x + kLine, y + 11, line.label + (line.note.empty() ? "" : "  " + line.note));
    width = std::max(width, x + kLine + static_cast<int>(line.label.size() + line.note.size() + 2) * 8);
  }
  return svg_document(width + kMargin, 2 * kMargin + static_cast<int>(lines.size()) * kRow, body);
}

Status write_svg(const std::string& path, const std::string& svg) {
  STASIS_ASSIGN(LocalWriter writer, LocalWriter::open(path));
  STASIS_TRY(writer.write(svg));
  return writer.commit();
}

}  // namespace stasis::cli
