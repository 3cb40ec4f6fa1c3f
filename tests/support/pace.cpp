// Runs the plugin's decision between render and playback on a simulated clock.
//
// Reads the sample rate and the latency in seconds, then for each block the time since the last one
// ended in seconds, its samples, whether the host says offline (0 or 1), and the seconds waited in
// it. Writes 1 for each block that belongs to a render, else 0.
#include "../../plugin_bridge/native/pace.h"

#include <iostream>

int main() {
  double rate, latency, gap, waited;
  int samples, offline;
  std::cin >> rate >> latency;
  Pace pace;
  pace.start(rate, latency);
  Pace::Clock::time_point now{};
  const auto pass = [&](double seconds) {
    now += std::chrono::duration_cast<Pace::Clock::duration>(std::chrono::duration<double>(seconds));
  };
  while (std::cin >> gap >> samples >> offline >> waited) {
    pass(gap);
    std::cout << pace.is_render(samples, offline, now) << '\n';
    pass(waited);
    pace.end_block(now, waited);
  }
}
