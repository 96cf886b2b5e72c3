import ExecuTorchLLM
import Foundation

/// ExecuTorch's runner, which blocks while it works: it lives on a queue of its own; only `stop` may come from elsewhere.
///
/// A stop that comes before the first token is forgotten by the runner, so it is said again at every token until it ends.
final class Engine: @unchecked Sendable {
  private let runner: TextRunner
  private let lock = NSLock()
  private var stopping = false
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
        if self.isStopping { return done.resume() }
        self.runner.reset()
        let config = Config {
          $0.isEchoEnabled = false
          $0.maximumNewTokens = options.maximumTokens
          $0.temperature = options.temperature
          $0.bosCount = bosTokens
        }
        done.resume(
          with: Result {
            try self.runner.generate(prompt, config) { piece in
              if self.isStopping { self.runner.stop() } else { onPiece(piece) }
            }
          }
          .mapError { EdgeModelError.runtime("\($0.localizedDescription)") })
      }
    }
  }

  /// Forget an earlier stop: an answer begins.
  func begin() { lock.withLock { stopping = false } }

  /// End the answer that began.
  func stop() {
    lock.withLock { stopping = true }
    runner.stop()
  }

  /// Whether somebody asked for the end of the answer that began last.
  var isStopping: Bool { lock.withLock { stopping } }
}
