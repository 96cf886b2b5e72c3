import ExecuTorchLLM
import Foundation

/// ExecuTorch's runner, which blocks while it works: it lives on a queue of its own; only `stop` may come from elsewhere.
final class Engine: @unchecked Sendable {
  private let runner: TextRunner
  private let queue = DispatchQueue(label: "edgesdk.engine", qos: .userInitiated)

  init(_ folder: ModelFolder) {
    runner = TextRunner(modelPath: folder.program.path, tokenizerPath: folder.tokenizer.path)
  }

  func load() async throws {
    try await withCheckedThrowingContinuation { (done: CheckedContinuation<Void, Error>) in
      queue.async {
        done.resume(
          with: Result { try self.runner.load() }.mapError { EdgeModelError.runtime("\($0.localizedDescription)") })
      }
    }
  }

  /// Run a prompt from an empty cache; `onPiece` is called on the queue, once for each token.
  func generate(
    _ prompt: String, options: AnswerOptions, bosTokens: Int, onPiece: @escaping @Sendable (String) -> Void
  ) async throws {
    try await withCheckedThrowingContinuation { (done: CheckedContinuation<Void, Error>) in
      queue.async {
        self.runner.reset()
        let config = Config {
          $0.isEchoEnabled = false
          $0.maximumNewTokens = options.maximumTokens
          $0.temperature = options.temperature
          $0.bosCount = bosTokens
        }
        done.resume(
          with: Result { try self.runner.generate(prompt, config, tokenCallback: onPiece) }
            .mapError { EdgeModelError.runtime("\($0.localizedDescription)") })
      }
    }
  }

  func stop() { runner.stop() }
}
