import Foundation

/// What can go wrong; `localizedDescription` says what was found and the way out.
public enum EdgeModelError: Error, Equatable {
  /// A file of the model is not where the app expects it.
  case missing(String)
  /// A file is not the one that was packed: another size or another SHA-256.
  case damaged(String)
  /// It is not signed with the key that the app asks for, was changed since, or is older than the app takes.
  case refused(String)
  /// The manifest or `chat.json` cannot be read, or is of a newer version.
  case unreadable(String, String)
  /// The model takes no system text.
  case noSystemText
  /// A conversation has to be user, assistant, user, ...: with a user's text last.
  case notAConversation
  /// The conversation has no room left in the model's context of so many tokens.
  case contextFull(Int)
  /// The runtime refused the program, or failed.
  case runtime(String)
  /// An answer is being written; one model answers one at a time.
  case busy
  /// The model could not be brought to the device.
  case delivery(String)
}

extension EdgeModelError: LocalizedError {
  public var errorDescription: String? {
    switch self {
    case .missing(let name): return "\(name) is missing: add the Model folder to the app, or download it again"
    case .damaged(let name): return "\(name) is damaged: delete it and download it again"
    case .refused(let why): return "\(why): delete the model, and take one from where the app comes from"
    case .unreadable(let name, let why): return "\(name) cannot be read (\(why)): package the model again"
    case .noSystemText: return "this model takes no system text: put it into the first user's text"
    case .notAConversation: return "a conversation alternates user and assistant, and ends with a user's text"
    case .contextFull(let tokens): return "the conversation fills the context of \(tokens) tokens: begin a new one"
    case .runtime(let why): return "the model cannot run: \(why)"
    case .busy: return "the model is answering: stop it, or wait"
    case .delivery(let why): return "the model did not arrive: \(why)"
    }
  }
}
