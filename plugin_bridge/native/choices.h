// What the server offers and the user chooses from: models, their lookaheads and their stems.
//
// The server writes its offers to a file, which it leaves in place when it stops, and 'bsmamba2
// plugin install' writes one into the bundle. So the lists and the latency are known before a
// server runs. The lines of the file, with tabs between the fields:
//
//     bsmamba2 offers 1
//     model      name   default lookahead in ms   number of stems with a bus   stem …
//     lookahead  ms     latency in ms             of the model above
//
// The default model is the first. A lookahead of 0 ms stands for whole chunks, and a latency of 0
// for one that is not known yet. The stems with a bus sum to the input; a stem without a bus is a
// sum of others.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

struct Model {
  std::string name;
  uint32_t default_lookahead_ms = 0;
  int buses = 1;
  std::vector<std::string> stems{""};
  std::map<uint32_t, uint32_t> latency_ms{{0, 0}};  // by lookahead
};

// Returns the models of a file; none if it is damaged.
std::vector<Model> parse_offers(const std::string& text);

// The last stem is the mixture.
enum class List { stem, model, lookahead };

class Choices {
 public:
  // Reads the offers.
  Choices();

  // These take no lock, for the audio thread.
  int count(List list) const { return counts_[int(list)]; }
  int selected(List list) const { return selected_[int(list)]; }
  void select(List list, int index) { selected_[int(list)] = index; }

  // The functions below are not called on the audio thread.

  std::string name(List list, int index);
  // What is chosen. An empty name is the server's default model.
  struct Choice {
    std::string model;
    uint32_t lookahead_ms, latency_ms;
    int stems, buses;
  };
  Choice choice();
  // The names of the stems with a bus.
  std::vector<std::string> buses();
  // Reads the offers again. The choice stays, by name.
  void refresh();
  // Adopts the lists of the selected model. A stem or lookahead that it has too stays selected.
  void follow_model();
  // Grows when a list becomes another.
  int revision() const { return revision_; }

  // The choice as lines of text, with what a host needs before it has seen the server.
  std::string state();
  // Chooses what state() returned; keeps the current choice where a line is missing.
  void restore(const std::map<std::string, std::string>& lines);

 private:
  std::vector<Model> read_offers();
  void follow_model_locked();
  void adopt(const std::string& stem, uint32_t lookahead_ms);
  std::string stem_name() const;
  uint32_t lookahead_ms() const;
  const Model& current() const { return models_[size_t(model_)]; }

  std::mutex mutex_;
  std::vector<Model> models_;
  int model_ = 0;  // whose lists are in counts_
  std::atomic<int> selected_[3] = {}, counts_[3] = {}, revision_{0};
};
