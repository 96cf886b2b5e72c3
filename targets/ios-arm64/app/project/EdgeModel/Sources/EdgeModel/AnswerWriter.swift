import Foundation

/// Pieces from the runtime, on its queue, into the events of one answer.
final class AnswerWriter: @unchecked Sendable {
  private let stops: Set<String>
  private let continuation: AsyncThrowingStream<AnswerEvent, Error>.Continuation
  private let clock = ContinuousClock()
  private let started: ContinuousClock.Instant
  private var first: ContinuousClock.Instant?
  private var buffer = CharacterBuffer()
  private var statistics = Statistics()
  private var ended = false

  init(stop: [String], _ continuation: AsyncThrowingStream<AnswerEvent, Error>.Continuation) {
    stops = Set(stop)
    self.continuation = continuation
    started = clock.now
  }

  func take(_ piece: String) {
    ended = ended || stops.contains(piece)  // the runtime says the token that ends an answer, too
    if ended { return }
    let now = clock.now
    if let first {
      statistics.decoding = now - first
    } else {
      first = now
      statistics.timeToFirstToken = now - started
    }
    statistics.pieces += 1
    send(buffer.take(piece))
  }

  /// Tokens so far, without one that only ends the answer.
  var pieces: Int { statistics.pieces }

  /// The runtime has ended: by itself, or because somebody asked it to.
  func finish(stopped: Bool) {
    send(buffer.finish())
    statistics.lostCharacters = buffer.lost
    statistics.stopped = stopped && !ended
    continuation.yield(.done(statistics))
  }

  private func send(_ text: String) {
    if !text.isEmpty { continuation.yield(.text(text)) }
  }
}
