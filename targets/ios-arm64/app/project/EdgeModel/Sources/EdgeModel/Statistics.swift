import Foundation

/// What an answer took. ExecuTorch's Swift runner reports nothing, so these are the app's own clock: the first token's
/// time holds tokenization and the prompt, and pieces are tokens without those that only end an answer.
public struct Statistics: Sendable, Equatable {
  public var timeToFirstToken: Duration?
  public var decoding: Duration = .zero
  public var pieces = 0
  public var lostCharacters = 0
  /// Whether somebody stopped it: not the model, the most tokens that were asked for, or the end of the context.
  public var stopped = false

  public init() {}

  /// Tokens a second after the first one; nil with fewer than two.
  public var tokensPerSecond: Double? {
    let seconds = Double(decoding.components.seconds) + Double(decoding.components.attoseconds) * 1e-18
    return pieces > 1 && seconds > 0 ? Double(pieces - 1) / seconds : nil
  }
}

/// An answer while it is written.
public enum AnswerEvent: Sendable, Equatable {
  /// Whole characters.
  case text(String)
  /// The end, once.
  case done(Statistics)
}
