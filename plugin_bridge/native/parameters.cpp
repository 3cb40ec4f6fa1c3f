#include "parameters.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <locale>
#include <map>
#include <sstream>
#include <vector>

namespace {

constexpr int max_missed = 9999;

struct Description {
  const char *title, *unit;
  double low, high, initial;
  int32_t flags;
};

constexpr int32_t list = vst3::can_automate | vst3::is_list;
constexpr Description descriptions[Parameters::count] = {
    {"Gain", "dB", -60, 20, 0, vst3::can_automate},
    {"Mix", "%", 0, 100, 100, vst3::can_automate},
    {"Stem", "", 0, 0, 0, list},
    {"Wait when rendering", "", 0, 1, 1, list},
    {"While waiting", "", 0, 2, 1, list},
    {"Model", "", 0, 0, 0, list},
    {"Lookahead", "", 0, 0, 0, list},
    {"Missed blocks", "", 0, max_missed, 0, vst3::is_read_only},
};
const std::vector<std::string> wait_texts{"Off", "On"},
    waiting_texts{"Unprocessed", "Silence in renders", "Silence"};
// The names under which the state has those values that are not choices.
constexpr const char* keys[Parameters::count] = {"gain", "mix", nullptr, "wait", "waiting"};
constexpr char head[] = "bsmamba2 2\n", head_1[] = "bsmamba2 1\n";

bool to_list(int id, List* which) {
  if (id == Parameters::stem) *which = List::stem;
  else if (id == Parameters::model) *which = List::model;
  else if (id == Parameters::lookahead) *which = List::lookahead;
  else return false;
  return true;
}

std::string to_utf8(const char16_t* text, int limit) {
  std::string result;
  for (int i = 0; i < limit && text[i]; ++i) {
    uint32_t code = text[i];
    if (code >= 0xD800 && code < 0xDC00 && i + 1 < limit && (text[i + 1] & 0xFC00) == 0xDC00)
      code = 0x10000 + ((code - 0xD800) << 10) + (text[++i] - 0xDC00);
    const int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    constexpr uint32_t marks[] = {0, 0xC0, 0xE0, 0xF0};
    result += char(marks[more] | (code >> (6 * more)));
    for (int left = more; left--;) result += char(0x80 | ((code >> (6 * left)) & 0x3F));
  }
  return result;
}

}  // namespace

void put(char16_t* place, const std::string& text) {
  int length = 0;
  for (size_t i = 0; i < text.size() && length < 126;) {
    const unsigned char first = static_cast<unsigned char>(text[i++]);
    const int more = first < 0xC0 ? 0 : first < 0xE0 ? 1 : first < 0xF0 ? 2 : 3;
    uint32_t code = more ? first & (0x3F >> more) : first;
    for (int left = more; left && i < text.size(); --left)
      code = (code << 6) | (static_cast<unsigned char>(text[i++]) & 0x3F);
    if (code >= 0x10000) {
      place[length++] = char16_t(0xD800 + ((code - 0x10000) >> 10));
      code = 0xDC00 + ((code - 0x10000) & 0x3FF);
    }
    place[length++] = char16_t(code);
  }
  place[length] = 0;
}

Parameters::Parameters(std::shared_ptr<Choices> choices) : choices_(std::move(choices)) {
  for (int id = 0; id < count; ++id) values_[id] = to_normalised(id, descriptions[id].initial);
}

int Parameters::steps(int id) const {
  List which;
  if (to_list(id, &which)) return choices_->count(which) - 1;
  return id == gain || id == mix ? 0 : int(descriptions[id].high);
}

int Parameters::step_of(int id, double value) const {
  return int(std::min(double(steps(id)), std::floor(value * (steps(id) + 1))));
}

double Parameters::to_plain(int id, double normalised) const {
  // The comparison is false for NaN, which a host may send.
  const double value = normalised >= 0 ? std::min(normalised, 1.0) : 0.0;
  if (id != gain && id != mix) return step_of(id, value);
  return descriptions[id].low + value * (descriptions[id].high - descriptions[id].low);
}

double Parameters::to_normalised(int id, double plain) const {
  const bool is_stepped = id != gain && id != mix;
  const double low = descriptions[id].low, high = is_stepped ? steps(id) : descriptions[id].high;
  const double value = high > low ? (plain - low) / (high - low) : 0;
  return value >= 0 ? std::min(value, 1.0) : 0.0;
}

double Parameters::get(int id) const {
  List which;
  if (to_list(id, &which)) return to_normalised(id, choices_->selected(which));
  return values_[id];
}

bool Parameters::set(int id, double value) {
  if (id < 0 || id >= count || id == missed || !(value >= 0 && value <= 1)) return false;
  List which;
  if (to_list(id, &which))
    choices_->select(which, step_of(id, value));
  else
    values_[id] = value;
  return true;
}

Settings Parameters::settings() const {
  Settings settings;
  settings.gain = float(std::pow(10.0, to_plain(gain, get(gain)) / 20));
  settings.mix = float(to_plain(mix, get(mix)) / 100);
  settings.stem = choices_->selected(List::stem);
  return settings;
}

bool Parameters::set_missed(int blocks) {
  const double value = to_normalised(missed, std::min(blocks, max_missed));
  return values_[missed].exchange(value) != value;
}

vst3::ParameterInfo Parameters::info(int id) const {
  const Description& description = descriptions[id];
  vst3::ParameterInfo info{};
  info.id = uint32_t(id);
  put(info.title, description.title);
  put(info.short_title, description.title);
  put(info.units, description.unit);
  // Hosts show a list of two as a switch, without names.
  List which;
  info.steps = to_list(id, &which) && steps(id) == 1 ? 0 : steps(id);
  info.initial = to_normalised(id, description.initial);
  info.flags = description.flags;
  return info;
}

std::string Parameters::text_of(int id, double value) {
  const double plain = to_plain(id, value);
  List which;
  if (to_list(id, &which)) {
    const std::string name = choices_->name(which, int(plain));
    return name.empty() ? "Default" : name;
  }
  if (id == wait) return wait_texts[size_t(plain)];
  if (id == waiting) return waiting_texts[size_t(plain)];
  char text[32];
  std::snprintf(text, sizeof text, id == missed ? "%.0f" : "%.1f", plain);
  const std::string unit = descriptions[id].unit;
  return writes_units_ && !unit.empty() ? text + (" " + unit) : text;
}

bool Parameters::value_of(int id, const char16_t* text, double* value) {
  const std::string wanted = to_utf8(text, 128);
  if (id == gain || id == mix || id == missed) {
    std::istringstream number(wanted);
    number.imbue(std::locale::classic());
    double plain;
    if (!(number >> plain)) return false;
    *value = to_normalised(id, plain);
    return true;
  }
  for (int step = 0; step <= steps(id); ++step) {
    const double normalised = to_normalised(id, step);
    if (text_of(id, normalised) != wanted) continue;
    *value = normalised;
    return true;
  }
  return false;
}

std::string Parameters::state() {
  std::ostringstream lines;
  lines.imbue(std::locale::classic());  // hosts may set a locale with decimal commas
  lines.precision(17);
  lines << head;
  for (int id = 0; id < count; ++id)
    if (keys[id]) lines << keys[id] << ' ' << get(id) << '\n';
  return lines.str() + choices_->state() + '\n';
}

size_t Parameters::restore(const std::string& text) {
  if (!text.compare(0, sizeof head_1 - 1, head_1)) return restore_version_1(text);
  if (text.compare(0, sizeof head - 1, head)) return 0;
  std::map<std::string, std::string> lines;
  size_t at = sizeof head - 1;
  for (;;) {
    const size_t end = text.find('\n', at), space = text.find(' ', at);
    if (end == std::string::npos) return 0;
    if (end == at) break;  // an empty line ends the state
    if (space >= end) return 0;
    lines[text.substr(at, space - at)] = text.substr(space + 1, end - space - 1);
    at = end + 1;
  }
  double values[count];
  for (int id = 0; id < count; ++id) {
    if (!keys[id]) continue;
    std::istringstream number(lines[keys[id]]);
    number.imbue(std::locale::classic());
    if (!(number >> values[id] && values[id] >= 0 && values[id] <= 1)) return 0;
  }
  for (int id = 0; id < count; ++id)
    if (keys[id]) values_[id] = values[id];
  choices_->restore(lines);
  return at + 1;
}

// Version 1 had four values. Its last, whether to wait in a render, is not restored: it was off by
// default and no host could set it.
size_t Parameters::restore_version_1(const std::string& text) {
  std::istringstream lines(text.substr(sizeof head_1 - 1));
  lines.imbue(std::locale::classic());
  double values[4];
  for (double& value : values)
    if (!(lines >> value) || lines.get() != '\n' || !(value >= 0 && value <= 1)) return 0;
  values_[gain] = values[0];
  values_[mix] = values[1];
  choices_->select(List::stem, std::min(int(values[2] * 16), choices_->count(List::stem) - 2));
  return sizeof head_1 - 1 + size_t(lines.tellg());
}
