import EdgeModel
import ExecuTorch
import Foundation

/// The program itself, token by token: what a benchmark times, without text and without sampling.
public final class TokenSession {
  public let context: Int
  public let vocab: Int
  private let chunk: Int
  private let module: Module
  private var position = 0

  /// Load the program's method `forward`, memory-mapped.
  ///
  /// - Throws: what ExecuTorch says, or `EdgeModelError.unreadable` where the manifest lacks the program's own facts.
  public init(_ folder: ModelFolder) throws {
    guard let chunk = folder.manifest.number("get_max_seq_len"), let vocab = folder.manifest.number("get_vocab_size")
    else { throw EdgeModelError.unreadable("manifest.json", "no get_max_seq_len or get_vocab_size") }
    context = folder.manifest.context
    self.vocab = vocab
    self.chunk = chunk
    module = Module(filePath: folder.program.path, loadMode: .mmap)
    try module.load("forward")
  }

  /// Forget everything.
  public func reset() { position = 0 }

  /// Run a prompt in the program's own chunks; returns the logits [vocab] after its last token.
  public func prefill(_ ids: [Int]) throws -> [Float] {
    var logits: [Float] = []
    for start in stride(from: 0, to: ids.count, by: chunk) {
      logits = try run(Array(ids[start..<min(start + chunk, ids.count)]))
    }
    return logits
  }

  /// Run one token; returns the logits [vocab] after it.
  public func decode(_ id: Int) throws -> [Float] { try run([id]) }

  private func run(_ ids: [Int]) throws -> [Float] {
    let tokens = Tensor<Int64>(ids.map(Int64.init), shape: [1, ids.count])
    let logits: Tensor<Float> = try module.forward(tokens, Tensor<Int64>([Int64(position)]))
    position += ids.count
    return Array(logits.scalars().suffix(vocab))
  }
}
