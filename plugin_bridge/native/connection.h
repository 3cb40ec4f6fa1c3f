// A connection to the server, which separates one signal. Nothing here blocks for more than a few
// milliseconds.
//
// The protocol, little-endian, audio planar float32:
//
//     hello      "bsm2", version u32, sample rate f64, channels u32, lookahead in ms u32,
//                token 32 bytes, model 128 bytes: a name, padded with zeros
//     welcome    "bsm2", refused u32, latency u32, needed u32, stems u32, buses u32
//     request    samples u32, missed blocks u32, audio …
//     response   samples u32, audio of each stem …    in total as many samples as requested
//
// The latency, in samples, is what a host needs for live playback. For a render, what is needed is
// enough: the samples that the model has to see ahead. Without a name the server takes its default
// model and lookahead.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "choices.h"
#include "mixer.h"
#include "socket.h"

constexpr uint32_t max_latency = 1 << 24;

class Connection {
 public:
  struct Welcome {
    char magic[4];
    uint32_t refused, latency, needed, stems, buses;
  };

  // Sends a hello; returns false if no server is running.
  bool open(const Choices::Choice& choice, double sample_rate, int channels);
  void close();
  bool is_open() const { return socket_.is_open(); }

  // Waits a few milliseconds for the welcome. A server that has to load a model takes a while. The
  // connection is closed if the server has refused, or has ended without an answer: lost.
  enum class Answer { pending, accepted, refused, lost };
  Answer receive_welcome();
  bool is_accepted() const { return welcome_.stems > 0; }
  const Welcome& welcome() const { return welcome_; }

  // The first sample of the input that is sent, after the welcome.
  void begin(Mixer& mixer, int64_t time);
  int64_t sent() const { return sent_; }
  // Sends input and receives stems once; returns false if the connection is no longer usable.
  bool exchange(Mixer& mixer, int missed);

 private:
  void prepare_request(const Mixer& mixer, int missed);
  bool take_responses(Mixer& mixer);

  Socket socket_;
  Welcome welcome_{};
  std::string received_welcome_;  // as far as it has arrived
  int channels_ = 2;
  int64_t sent_ = 0, received_ = 0;
  std::vector<char> outgoing_, incoming_;
  size_t outgoing_sent_ = 0;
};
