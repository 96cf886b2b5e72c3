/// Pieces of text as the runtime gives them, one a token, handed on in whole characters.
///
/// A character may take several tokens. Its last part is held back, since what follows may belong to it: an accent, a
/// skin tone, a flag's second half. ExecuTorch's Objective-C layer turns a token that is no valid UTF-8 by itself into
/// an empty piece, and its bytes are lost there: a run of empty pieces becomes one U+FFFD, and is counted.
struct CharacterBuffer {
  private var held = ""
  private var losing = false

  /// How many characters were lost.
  private(set) var lost = 0

  /// Take one token's text; returns the characters that are whole now.
  mutating func take(_ piece: String) -> String {
    if piece.isEmpty {
      if !losing {
        losing = true
        lost += 1
        held.append("\u{FFFD}")
      }
      return ""
    }
    losing = false
    held.append(piece)
    guard let last = held.indices.last else { return "" }
    let whole = String(held[..<last])
    held.removeSubrange(..<last)
    return whole
  }

  /// What is left at the end of an answer.
  mutating func finish() -> String {
    defer { held = "" }
    return held
  }
}
