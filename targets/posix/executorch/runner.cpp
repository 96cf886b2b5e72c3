// The runner of boards without Python: a program of edgesdk's ExecuTorch converter, and the runner protocol on
// standard input and output.
//
//     runner MODEL.pte DIGEST STOP[,STOP...] THREADS
//
// DIGEST names the bundle; STOP are ids that end an answer (- for none); THREADS 0 leaves their number to ExecuTorch.
// Lines both ways carry their CRC-32: TEXT*XXXXXXXX. Commands:
//
//     hello
//     ids MAX TEMPERATURE TOP_P SEED SLIDE 1,2,3     (TEMPERATURE and TOP_P in thousandths, SLIDE 0)
//     measure MAX 1,2,3                              (so many tokens, greedily, whatever they are)
//     clock
//     the byte 3 (Ctrl-C): stop the answer
//
// Ticks are nanoseconds of CLOCK_MONOTONIC.

#include <poll.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <numeric>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>
#include <executorch/runtime/platform/runtime.h>

// Of extension/threadpool/threadpool.h, which the wheel lacks: what this runner calls.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  bool _unsafe_reset_threadpool(uint32_t threads);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace {

using executorch::aten::ScalarType;
using executorch::extension::from_blob;
using executorch::extension::Module;

constexpr int kProtocol = 1;
constexpr const char* kRuntime = "executorch " EXECUTORCH_VERSION;

int64_t now() {
  const auto since = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(since).count();
}

uint32_t crc32(const void* data, size_t size) {
  static const auto table = [] {
    std::array<uint32_t, 256> made{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit) value = value & 1 ? 0xEDB88320u ^ (value >> 1) : value >> 1;
      made[i] = value;
    }
    return made;
  }();
  uint32_t crc = ~0u;
  for (const auto* byte = static_cast<const uint8_t*>(data); size--; ++byte) crc = table[(crc ^ *byte) & 255] ^ (crc >> 8);
  return ~crc;
}

std::string hex(uint32_t number) {
  char text[9];
  std::snprintf(text, sizeof text, "%08x", number);
  return text;
}

// One event: a JSON object that is sent when it ends.
class Event {
 public:
  explicit Event(const char* name) { text("event", name); }
  ~Event() {
    line_ += '}';
    line_ += '*' + hex(crc32(line_.data(), line_.size())) + '\n';
    for (size_t at = 0; at < line_.size();) {
      const ssize_t count = ::write(1, line_.data() + at, line_.size() - at);
      if (count <= 0) std::_Exit(1);  // nobody listens
      at += static_cast<size_t>(count);
    }
  }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  Event& number(const char* name, int64_t value) {
    line_ += std::string(line_.empty() ? "{" : ",") + '"' + name + "\":" + std::to_string(value);
    return *this;
  }
  Event& text(const char* name, const std::string& value) {
    line_ += std::string(line_.empty() ? "{" : ",") + '"' + name + "\":\"";
    for (const char character : value) {
      if (character == '"' || character == '\\') line_ += '\\';
      if (static_cast<unsigned char>(character) >= 0x20) line_ += character;
    }
    line_ += '"';
    return *this;
  }

 private:
  std::string line_;
};

// Standard input: whole lines, and whether a Ctrl-C came.
class Input {
 public:
  // The next line; false at the end.
  bool line(std::string* found) {
    while (lines_.empty() && !ended_) read();
    if (lines_.empty()) return false;
    *found = lines_.front();
    lines_.pop_front();
    return true;
  }
  // Whether a Ctrl-C came since the last call, or nobody listens any more.
  bool stopped() {
    pollfd input{0, POLLIN, 0};
    while (!ended_ && ::poll(&input, 1, 0) > 0) read();
    return std::exchange(stopped_, false) || ended_;
  }

 private:
  void read() {
    char data[1 << 16];
    const ssize_t count = ::read(0, data, sizeof data);
    ended_ = count <= 0;
    for (ssize_t i = 0; i < count; ++i) {
      if (data[i] == 3) stopped_ = true;
      else if (data[i] != '\n') rest_ += data[i];
      else if (std::string whole = std::exchange(rest_, {}); !whole.empty()) lines_.push_back(std::move(whole));
    }
  }
  std::deque<std::string> lines_;
  std::string rest_;
  bool stopped_ = false, ended_ = false;
};

// The value of a result of ExecuTorch, or an exception that names what failed.
template <typename T>
T value_of(executorch::runtime::Result<T> result, const std::string& what) {
  if (!result.ok()) throw std::runtime_error(what + ": " + executorch::runtime::to_string(result.error()));
  return std::move(result.get());
}

// The program's `forward` and the number of tokens in its caches.
class Decoder {
 public:
  explicit Decoder(const std::string& path) : module_(path, Module::LoadMode::Mmap) {
    const auto meta = value_of(module_.method_meta("forward"), path);
    step_ = value_of(meta.input_tensor_meta(0), "forward's tokens").sizes()[1];
    vocab_ = value_of(meta.output_tensor_meta(0), "forward's logits").sizes()[2];
    context_ = value_of(module_.get("get_max_context_len"), "get_max_context_len").toInt();
    const auto loaded = module_.load_method("forward");
    if (loaded != executorch::runtime::Error::Ok) throw std::runtime_error(path + ": " + to_string(loaded));
  }

  int64_t vocab() const { return vocab_; }
  int64_t context() const { return context_; }
  bool full() const { return position_ >= context_; }
  void reset() { position_ = 0; }

  // Runs `ids` after what the caches hold; gives the logits after the last of them, until the next call.
  const float* feed(std::vector<int64_t> ids) {
    check(ids);
    const float* logits = nullptr;
    for (size_t at = 0; at < ids.size(); at += step_) {
      const auto count = static_cast<int32_t>(std::min(step_, ids.size() - at));
      const auto tokens = from_blob(ids.data() + at, {1, count}, ScalarType::Long);
      const auto start = from_blob(&position_, {1}, ScalarType::Long);
      outputs_ = value_of(module_.forward({tokens, start}), "forward");
      logits = row(outputs_.at(0).toTensor());
      position_ += count;
    }
    return logits;
  }

 private:
  void check(const std::vector<int64_t>& ids) const {
    if (ids.empty()) throw std::runtime_error("no tokens to run");
    for (const int64_t id : ids) {
      if (id < 0 || id >= vocab_) {
        throw std::runtime_error("no token " + std::to_string(id) + " in a vocabulary of " + std::to_string(vocab_));
      }
    }
    if (position_ + static_cast<int64_t>(ids.size()) > context_) {
      throw std::runtime_error("more tokens than the context of " + std::to_string(context_));
    }
  }

  const float* row(const executorch::aten::Tensor& logits) const {
    if (logits.scalar_type() != ScalarType::Float || logits.numel() != vocab_) {
      throw std::runtime_error("forward gave other than one row of float32 logits");
    }
    const float* found = logits.const_data_ptr<float>();
    if (!std::all_of(found, found + vocab_, [](float logit) { return std::isfinite(logit); })) {
      throw std::runtime_error("a logit is not finite");
    }
    return found;
  }

  Module module_;
  std::vector<executorch::runtime::EValue> outputs_;
  size_t step_ = 0;
  int64_t vocab_ = 0, context_ = 0, position_ = 0;
};

// The next token: the best, or by temperature and nucleus with the xorshift32 generator of the firmware.
class Choice {
 public:
  Choice(double temperature, double top_p, uint32_t seed) : temperature_(temperature), top_p_(top_p), state_(seed ? seed : 1) {}

  int64_t token(const float* logits, int64_t vocab) {
    const int64_t best = std::max_element(logits, logits + vocab) - logits;
    if (temperature_ <= 0) return best;
    std::vector<double> weights(vocab);
    for (int64_t i = 0; i < vocab; ++i) weights[i] = std::exp((double(logits[i]) - double(logits[best])) / temperature_);
    if (top_p_ < 1) keep_nucleus(&weights);
    double left = random() * std::accumulate(weights.begin(), weights.end(), 0.0);
    for (int64_t i = 0; i < vocab; ++i) {
      left -= weights[i];
      if (left < 0) return i;
    }
    return best;  // rounding left a little over
  }

 private:
  void keep_nucleus(std::vector<double>* weights) const {
    std::vector<size_t> order(weights->size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return (*weights)[a] > (*weights)[b]; });
    const double wanted = top_p_ * std::accumulate(weights->begin(), weights->end(), 0.0);
    double sum = 0;
    for (const size_t i : order) {
      if (sum >= wanted) (*weights)[i] = 0;
      else sum += (*weights)[i];
    }
  }

  double random() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 17;
    state_ ^= state_ << 5;
    return double((state_ * 2654435769u) >> 8) / (1 << 24);
  }

  double temperature_, top_p_;
  uint32_t state_;
};

// The most memory that this process held, kB, as the kernel says; -1 where it does not.
int64_t peak_rss_kb() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmHWM:", 0) == 0) return std::atoll(line.c_str() + 6);
  }
  return -1;
}

class Runner {
 public:
  Runner(Decoder* decoder, std::string digest, std::vector<int64_t> stop)
      : decoder_(decoder), digest_(std::move(digest)), stop_(std::move(stop)) {}

  void serve() {
    hello();
    for (std::string line; input_.line(&line);) {
      const size_t star = line.rfind('*');
      if (star == std::string::npos || line.substr(star + 1) != hex(crc32(line.data(), star))) {
        error("line", "the checksum does not fit: the line was cut or changed; send it again");
        continue;
      }
      try {
        command(line.substr(0, star));
      } catch (const std::exception& failure) {
        error("command", failure.what());
      }
    }
  }

  static void error(const char* code, const std::string& message) {
    Event("error").text("code", code).text("message", message);
  }

 private:
  void hello() const {
    Event("hello")
        .text("runner", "edgesdk-executorch")
        .number("protocol", kProtocol)
        .text("runtime", kRuntime)
        .text("digest", digest_)
        .number("vocab", decoder_->vocab())
        .number("context", decoder_->context())
        .number("prompt_tokens", decoder_->context() - 1)
        .number("ticks_per_second", 1000000000)
        .text("clock", "CLOCK_MONOTONIC")
        .number("pid", ::getpid());
  }

  void command(const std::string& text) {
    if (text == "hello") return hello();
    std::istringstream words(text);
    std::string verb, list;
    int64_t most = 0, temperature = 0, top_p = 0, seed = 0, slide = 0;
    words >> verb;
    if (verb == "clock") return clock();
    if (verb == "measure") {
      if (!(words >> most >> list)) throw std::runtime_error("expected MAX and tokens");
      return answer(numbers(list), most, Choice(0, 1, 1), {});
    }
    if (verb != "ids") throw std::runtime_error("there are: hello, ids, measure, clock");
    if (!(words >> most >> temperature >> top_p >> seed >> slide >> list)) {
      throw std::runtime_error("expected MAX TEMPERATURE TOP_P SEED SLIDE and tokens");
    }
    if (slide) throw std::runtime_error("this model's context cannot slide");
    answer(numbers(list), most, Choice(temperature / 1000.0, top_p / 1000.0, static_cast<uint32_t>(seed)), stop_);
  }

  static void clock() {
    timespec boot{};
    ::clock_gettime(CLOCK_BOOTTIME, &boot);
    Event("clock").number("at", now()).number("boottime", int64_t{boot.tv_sec} * 1000000000 + boot.tv_nsec);
  }

  void answer(const std::vector<int64_t>& ids, int64_t most, Choice choice, const std::vector<int64_t>& stops) {
    const char* stop = "length";
    decoder_->reset();
    input_.stopped();
    int64_t start = now(), produced = 0;
    const float* logits = decoder_->feed(ids);
    int64_t end = now();
    Event("prefill").number("tokens", static_cast<int64_t>(ids.size())).number("ticks", end - start).number("at", end);
    while (produced < most) {
      const uint32_t crc = crc32(logits, static_cast<size_t>(decoder_->vocab()) * sizeof *logits);
      start = now();
      const int64_t token = choice.token(logits, decoder_->vocab());
      const int64_t sampling = now() - start;
      if (std::find(stops.begin(), stops.end(), token) != stops.end()) {
        stop = "eos";
        break;
      }
      ++produced;
      const bool full = decoder_->full();
      start = now();
      if (produced < most && !full) logits = decoder_->feed({token});
      end = now();
      Event("token").number("id", token).text("text", "").text("logits", hex(crc)).number("sample_ticks", sampling)
          .number("ticks", end - start).number("at", end);
      if (full || input_.stopped()) {
        stop = full ? "context" : "user";
        break;
      }
    }
    Event("done").number("prompt_tokens", static_cast<int64_t>(ids.size())).number("new_tokens", produced)
        .text("stop", stop).text("text", "").number("peak_rss_kb", peak_rss_kb());
  }

  Decoder* decoder_;
  std::string digest_;
  std::vector<int64_t> stop_;
  Input input_;

 public:
  static std::vector<int64_t> numbers(const std::string& list) {
    std::vector<int64_t> found;
    std::istringstream parts(list);
    for (std::string part; std::getline(parts, part, ',');) found.push_back(std::stoll(part));
    return found;
  }
};

void run(int count, char** arguments) {
  if (count != 5) throw std::runtime_error("usage: runner MODEL.pte DIGEST STOP[,STOP...] THREADS");
  const std::string stop = arguments[3];
  if (const long threads = std::atol(arguments[4]); threads > 0) {
    executorch::extension::threadpool::get_threadpool()->_unsafe_reset_threadpool(static_cast<uint32_t>(threads));
  }
  const int64_t start = now();
  Decoder decoder(arguments[1]);
  Event("load").number("ticks", now() - start).number("ticks_per_second", 1000000000);
  Runner(&decoder, arguments[2], stop == "-" ? std::vector<int64_t>{} : Runner::numbers(stop)).serve();
}

}  // namespace

int main(int count, char** arguments) {
  try {
    run(count, arguments);
  } catch (const std::exception& failure) {
    Runner::error("bundle", failure.what());
    return 1;
  }
}
