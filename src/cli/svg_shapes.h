// The few shapes that pictures are made of, as SVG text. Lengths in pixels; text that came from outside is escaped.
#pragma once

#include <string>

namespace stasis::cli {

std::string svg_text(double x, double y, const std::string& text, const char* more = "");
std::string svg_rectangle(double x, double y, double width, double height, const std::string& fill);
std::string svg_document(int width, int height, const std::string& body);

}  // namespace stasis::cli
