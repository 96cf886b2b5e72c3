// Greedy tokens from a program of edgesdk's ExecuTorch converter, with no tokenizer and no Python.
//
//     runner MODEL.pte COUNT ID...
//
// Feeds the prompt ids in steps as long as the program takes, prints COUNT greedy token ids, one a line, and at last
// "max_rss_kb N". What fails is said on standard error, with exit status 1.

#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

namespace {

using executorch::aten::ScalarType;
using executorch::extension::Module;
using executorch::extension::from_blob;

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
  }

  // Runs `ids` after what the caches hold; gives the best next token.
  int64_t feed(std::vector<int64_t> ids) {
    check(ids);
    int64_t best = -1;
    for (size_t at = 0; at < ids.size(); at += step_) {
      const auto count = static_cast<int32_t>(std::min(step_, ids.size() - at));
      const auto tokens = from_blob(ids.data() + at, {1, count}, ScalarType::Long);
      const auto start = from_blob(&position_, {1}, ScalarType::Long);
      const auto outputs = value_of(module_.forward({tokens, start}), "forward");
      best = argmax(outputs.at(0).toTensor());
      position_ += count;
    }
    return best;
  }

 private:
  void check(const std::vector<int64_t>& ids) const {
    for (const int64_t id : ids) {
      if (id < 0 || id >= vocab_) {
        throw std::runtime_error("no token " + std::to_string(id) + " in a vocabulary of " + std::to_string(vocab_));
      }
    }
    if (position_ + static_cast<int64_t>(ids.size()) > context_) {
      throw std::runtime_error("more tokens than the context of " + std::to_string(context_));
    }
  }

  int64_t argmax(const executorch::aten::Tensor& logits) const {
    if (logits.scalar_type() != ScalarType::Float || logits.numel() != vocab_) {
      throw std::runtime_error("forward gave other than one row of float32 logits");
    }
    const float* row = logits.const_data_ptr<float>();
    if (!std::all_of(row, row + vocab_, [](float logit) { return std::isfinite(logit); })) {
      throw std::runtime_error("a logit is not finite");
    }
    return std::max_element(row, row + vocab_) - row;
  }

  Module module_;
  size_t step_ = 0;
  int64_t vocab_ = 0, context_ = 0, position_ = 0;
};

void run(int count, char** arguments) {
  if (count < 4) throw std::runtime_error("usage: runner MODEL.pte COUNT ID...");
  Decoder decoder(arguments[1]);
  const int wanted = std::stoi(arguments[2]);
  std::vector<int64_t> ids;
  for (int at = 3; at < count; ++at) ids.push_back(std::stoll(arguments[at]));
  for (int made = 0; made < wanted; ++made) {
    ids = {decoder.feed(ids)};
    std::printf("%lld\n", static_cast<long long>(ids[0]));
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  std::printf("max_rss_kb %ld\n", usage.ru_maxrss);
}

}  // namespace

int main(int count, char** arguments) {
  try {
    run(count, arguments);
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "runner: %s\n", failure.what());
    return 1;
  }
}
