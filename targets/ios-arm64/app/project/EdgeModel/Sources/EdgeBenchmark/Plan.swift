import Foundation

/// What is measured: `edgesdk profile`'s protocol, run inside of an app.
public struct Plan: Decodable, Sendable {
  /// Lengths of the prompts, in tokens; each is a case.
  public var promptTokens = [128, 512]
  /// Tokens of each answer.
  public var newTokens = 64
  /// Repeats of each case that count.
  public var repeats = 6
  /// Repeats of each case before them that do not.
  public var warmup = 1
  /// Seconds that the first case is repeated without a pause at the end, for heat; 0 leaves that out.
  public var sustained = 0.0
  /// Of the random prompts.
  public var seed: UInt64 = 1

  public init() {}

  private enum Key: String, CodingKey {
    case promptTokens, newTokens, repeats, warmup, sustained, seed
  }

  /// What is left out is as in a plan of nothing.
  public init(from decoder: Decoder) throws {
    let given = try decoder.container(keyedBy: Key.self)
    promptTokens = try given.decodeIfPresent([Int].self, forKey: .promptTokens) ?? promptTokens
    newTokens = try given.decodeIfPresent(Int.self, forKey: .newTokens) ?? newTokens
    repeats = try given.decodeIfPresent(Int.self, forKey: .repeats) ?? repeats
    warmup = try given.decodeIfPresent(Int.self, forKey: .warmup) ?? warmup
    sustained = try given.decodeIfPresent(Double.self, forKey: .sustained) ?? sustained
    seed = try given.decodeIfPresent(UInt64.self, forKey: .seed) ?? seed
  }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): prompts are random tokens, the same for a seed.
struct RandomTokens {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func prompt(_ count: Int, vocab: Int) -> [Int] {
    (0..<count).map { _ in
      state &+= 0x9E37_79B9_7F4A_7C15
      var mixed = state
      mixed = (mixed ^ mixed >> 30) &* 0xBF58_476D_1CE4_E5B9
      mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
      return Int((mixed ^ mixed >> 31) % UInt64(vocab))
    }
  }
}
