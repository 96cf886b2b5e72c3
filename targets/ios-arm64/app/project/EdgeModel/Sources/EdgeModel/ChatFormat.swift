import Foundation

/// One text of a conversation.
public struct Message: Sendable, Equatable {
  public enum Role: Sendable { case system, user, assistant }

  public let role: Role
  public let text: String

  public init(_ role: Role, _ text: String) {
    self.role = role
    self.text = text
  }
}

/// How the model wants a conversation written: `chat.json`, which edgesdk made from the model's chat template.
public struct ChatFormat: Decodable, Sendable {
  static let schema = 1

  public let schema: Int
  public let templated: Bool
  public let start: String
  public let systemStart: String?
  public let systemEnd: String?
  public let answer: String
  public let next: String
  public let trims: Bool
  public let bosTokens: Int
  /// Most tokens that a text has beyond its bytes in UTF-8; nil where `chat.json` does not say.
  public let addedTokens: Int?
  public let stop: [String]

  static func read(_ url: URL) throws -> ChatFormat {
    let found: ChatFormat = try decoded(url)
    guard found.schema == schema else {
      throw EdgeModelError.unreadable("chat.json", "schema \(found.schema); this app reads \(schema)")
    }
    return found
  }

  /// A conversation as one prompt that the assistant's answer follows.
  ///
  /// - Throws: `EdgeModelError.notAConversation`, or `.noSystemText`.
  public func prompt(_ messages: [Message]) throws -> String {
    var turns = messages[...]
    guard templated else {
      guard turns.count == 1, turns[0].role == .user else { throw EdgeModelError.notAConversation }
      return start + turns[0].text
    }
    var opening = start
    if let first = turns.first, first.role == .system {
      guard let systemStart, let systemEnd else { throw EdgeModelError.noSystemText }
      opening = systemStart + trimmed(first.text) + systemEnd
      turns = turns.dropFirst()
    }
    guard turns.last?.role == .user else { throw EdgeModelError.notAConversation }
    for (index, turn) in turns.enumerated() {
      guard turn.role == (index.isMultiple(of: 2) ? .user : .assistant) else {
        throw EdgeModelError.notAConversation
      }
      opening += trimmed(turn.text) + (turn.role == .user ? answer : next)
    }
    return opening
  }

  private func trimmed(_ text: String) -> String {
    trims ? text.trimmingCharacters(in: .whitespacesAndNewlines) : text
  }
}
