#include "choices.h"

#include <algorithm>
#include <cstdlib>

#include "socket.h"

namespace {

constexpr size_t max_models = 500, max_names = 64, max_file = 1 << 20, max_name = 120;
constexpr char head[] = "bsmamba2 offers 1", mixture[] = "mixture";

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find(separator, at), text.size());
    parts.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

bool to_number(const std::string& text, uint32_t* number) {
  char* end = nullptr;
  const unsigned long value = std::strtoul(text.c_str(), &end, 10);
  *number = uint32_t(value);
  return !text.empty() && text[0] >= '0' && text[0] <= '9' && !*end && value <= 1u << 24;
}

bool is_name(const std::string& name) { return !name.empty() && name.size() <= max_name; }

bool same(const std::vector<Model>& a, const std::vector<Model>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const Model& x, const Model& y) {
    const auto keys = [](const auto& left, const auto& right) { return left.first == right.first; };
    return x.name == y.name && x.stems == y.stems &&
           std::equal(x.latency_ms.begin(), x.latency_ms.end(), y.latency_ms.begin(),
                      y.latency_ms.end(), keys);
  });
}

}  // namespace

std::vector<Model> parse_offers(const std::string& text) {
  std::vector<Model> models;
  std::vector<std::string> lines = split(text, '\n');
  if (lines[0] != head) return {};
  for (size_t i = 1; i < lines.size(); ++i) {
    const std::vector<std::string> words = split(lines[i], '\t');
    if (words[0] == "model") {
      Model model;
      uint32_t buses = 0;
      if (words.size() < 5 || words.size() > 4 + max_names || models.size() == max_models ||
          !to_number(words[2], &model.default_lookahead_ms) || !to_number(words[3], &buses))
        return {};
      model.name = words[1];
      model.stems.assign(words.begin() + 4, words.end());
      model.buses = int(buses);
      model.latency_ms.clear();
      if (!is_name(model.name) || !std::all_of(model.stems.begin(), model.stems.end(), is_name) ||
          buses < 1 || buses > model.stems.size())
        return {};
      models.push_back(model);
    } else if (words[0] == "lookahead") {
      uint32_t ms, latency;
      if (words.size() != 3 || models.empty() || models.back().latency_ms.size() == max_names ||
          !to_number(words[1], &ms) || !to_number(words[2], &latency))
        return {};
      models.back().latency_ms[ms] = latency;
    }
  }
  for (const Model& model : models)
    if (!model.latency_ms.count(model.default_lookahead_ms)) return {};
  return models;
}

Choices::Choices() {
  models_ = read_offers();
  if (models_.empty()) models_.emplace_back();
  adopt("", current().default_lookahead_ms);
}

std::vector<Model> Choices::read_offers() {
  std::vector<Model> models = parse_offers(read_own_file(server_folder() + "/models", max_file));
  if (models.empty())
    models = parse_offers(read_own_file(resources_folder() + "/models", max_file));
  return models;
}

std::string Choices::stem_name() const {
  const auto& stems = current().stems;
  const size_t at = size_t(std::max(0, selected(List::stem)));
  return at < stems.size() ? stems[at] : mixture;
}

uint32_t Choices::lookahead_ms() const {
  const auto& known = current().latency_ms;
  const int at = std::clamp(selected(List::lookahead), 0, int(known.size()) - 1);
  return std::next(known.begin(), at)->first;
}

// Sets the lists to those of the model, and selects a stem and a lookahead if it has them.
void Choices::adopt(const std::string& stem, uint32_t lookahead) {
  const Model& model = current();
  const auto found = std::find(model.stems.begin(), model.stems.end(), stem);
  auto ms = model.latency_ms.find(lookahead);
  if (ms == model.latency_ms.end()) ms = model.latency_ms.find(model.default_lookahead_ms);
  counts_[int(List::model)] = int(models_.size());
  counts_[int(List::stem)] = int(model.stems.size()) + 1;
  counts_[int(List::lookahead)] = int(model.latency_ms.size());
  select(List::model, model_);
  const bool is_unknown = found == model.stems.end() && stem != mixture;
  select(List::stem, is_unknown ? 0 : int(found - model.stems.begin()));
  select(List::lookahead, int(std::distance(model.latency_ms.begin(), ms)));
}

void Choices::follow_model_locked() {
  const int wanted = std::clamp(selected(List::model), 0, int(models_.size()) - 1);
  if (wanted == model_) return;
  const std::string stem = stem_name();
  const uint32_t lookahead = lookahead_ms();
  model_ = wanted;
  adopt(stem, lookahead);
  ++revision_;
}

void Choices::follow_model() {
  std::lock_guard lock(mutex_);
  follow_model_locked();
}

void Choices::refresh() {
  std::vector<Model> offered = read_offers();
  std::lock_guard lock(mutex_);
  if (offered.empty()) return;
  follow_model_locked();
  const std::string stem = stem_name();
  const uint32_t lookahead = lookahead_ms();
  const Model chosen = current();
  const auto named = [&](const Model& model) { return model.name == chosen.name; };
  auto found = std::find_if(offered.begin(), offered.end(), named);
  const bool is_new = chosen.name.empty();
  // A model that a project has chosen stays in the list, so that the choice is not lost.
  if (!is_new && found == offered.end()) found = offered.insert(offered.end(), chosen);
  // What the server has not measured yet may be known from before.
  if (!is_new)
    for (auto& [ms, latency] : found->latency_ms)
      if (const auto before = chosen.latency_ms.find(ms);
          !latency && before != chosen.latency_ms.end())
        latency = before->second;
  if (!same(models_, offered)) ++revision_;
  model_ = is_new ? 0 : int(found - offered.begin());
  models_ = std::move(offered);
  adopt(stem, is_new ? current().default_lookahead_ms : lookahead);
}

std::string Choices::name(List list, int index) {
  std::lock_guard lock(mutex_);
  follow_model_locked();
  if (index < 0 || index >= count(list)) return {};
  if (list == List::stem)
    return size_t(index) < current().stems.size() ? current().stems[size_t(index)] : mixture;
  if (list == List::model) return models_[size_t(index)].name;
  const uint32_t ms = std::next(current().latency_ms.begin(), index)->first;
  return ms ? std::to_string(ms) + " ms" : "Whole chunks";
}

Choices::Choice Choices::choice() {
  std::lock_guard lock(mutex_);
  follow_model_locked();
  const uint32_t ms = lookahead_ms();
  return {current().name, ms, current().latency_ms.at(ms), int(current().stems.size()),
          current().buses};
}

std::vector<std::string> Choices::buses() {
  std::lock_guard lock(mutex_);
  follow_model_locked();
  const auto& stems = current().stems;
  return {stems.begin(), stems.begin() + current().buses};
}

std::string Choices::state() {
  std::lock_guard lock(mutex_);
  follow_model_locked();
  const Model& model = current();
  if (model.name.empty()) return {};
  const uint32_t ms = lookahead_ms();
  std::string stems;
  for (const std::string& stem : model.stems) stems += '\t' + stem;
  return "model " + model.name + "\nstem " + stem_name() + "\nlookahead_ms " + std::to_string(ms) +
         "\nlatency_ms " + std::to_string(model.latency_ms.at(ms)) + "\nbuses " +
         std::to_string(model.buses) + "\nstems " + stems.substr(1) + '\n';
}

void Choices::restore(const std::map<std::string, std::string>& lines) {
  const auto line = [&](const char* key) {
    const auto found = lines.find(key);
    return found == lines.end() ? std::string() : found->second;
  };
  Model saved;
  uint32_t latency = 0, buses = 0, ms = 0;
  saved.name = line("model");
  saved.stems = split(line("stems"), '\t');
  if (!is_name(saved.name) || saved.stems.size() > max_names ||
      !std::all_of(saved.stems.begin(), saved.stems.end(), is_name) ||
      !to_number(line("lookahead_ms"), &ms) || !to_number(line("latency_ms"), &latency) ||
      !to_number(line("buses"), &buses) || buses < 1 || buses > saved.stems.size())
    return;
  saved.buses = int(buses);
  saved.latency_ms = {{ms, latency}};
  saved.default_lookahead_ms = ms;
  std::lock_guard lock(mutex_);
  const auto named = [&](const Model& model) { return model.name == saved.name; };
  auto found = std::find_if(models_.begin(), models_.end(), named);
  if (found == models_.end()) {
    if (models_[0].name.empty()) models_.clear();
    found = models_.insert(models_.end(), saved);
  } else if (uint32_t& known = found->latency_ms[ms]; !known) {
    known = latency;
  }
  model_ = int(found - models_.begin());
  adopt(line("stem"), ms);
  ++revision_;
}
