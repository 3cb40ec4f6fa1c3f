// The parameters as hosts see them: their values, ranges, texts and saved state.
//
// Values are normalised, 0 to 1, as in the VST3 interface. Plain values have a unit; that of a list
// is an index.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "backend.h"
#include "choices.h"
#include "vst3.h"

// Copies UTF-8 into one of the interface's texts, which has room for 128 characters.
void put(char16_t* place, const std::string& text);

class Parameters {
 public:
  enum Id { gain, mix, stem, wait, waiting, model, lookahead, missed, count };

  explicit Parameters(std::shared_ptr<Choices> choices);

  // These take no lock.
  double get(int id) const;
  // Returns false if the value is out of range or the parameter is read-only.
  bool set(int id, double value);
  double to_plain(int id, double value) const;
  double to_normalised(int id, double plain) const;
  Settings settings() const;
  bool waits() const { return to_plain(wait, get(wait)) > 0.5; }
  Fallback fallback() const { return Fallback(int(to_plain(waiting, get(waiting)))); }
  // Sets the read-only parameter; returns whether it has changed.
  bool set_missed(int blocks);

  // Whether texts end with the unit. Most hosts append it themselves.
  void write_units(bool on) { writes_units_ = on; }

  vst3::ParameterInfo info(int id) const;
  std::string text_of(int id, double value);
  // Returns false if the text is not a value.
  bool value_of(int id, const char16_t* text, double* value);

  // The values and the choices as lines of text.
  std::string state();
  // Restores what state() has returned, and returns how many characters it had; 0, and no change,
  // if the text is not a state.
  size_t restore(const std::string& text);

 private:
  int steps(int id) const;
  int step_of(int id, double value) const;
  size_t restore_version_1(const std::string& text);

  const std::shared_ptr<Choices> choices_;
  std::atomic<double> values_[count] = {};
  std::atomic<bool> writes_units_{false};
};
