import Foundation

/// What a caller may choose about an answer.
public struct AnswerOptions: Sendable {
  public var maximumTokens: Int
  /// 0 is greedy; ExecuTorch takes up to 1.
  public var temperature: Double

  public init(maximumTokens: Int = 256, temperature: Double = 0) {
    self.maximumTokens = maximumTokens
    self.temperature = temperature
  }
}

/// A language model on this device.
///
/// ```swift
/// let model = EdgeModel(try .inResources())
/// for try await event in await model.answer([Message(.user, "Hello")]) {
///   if case .text(let text) = event { print(text, terminator: "") }
/// }
/// ```
///
/// One answer at a time. Cancelling the task that reads an answer stops it.
public actor EdgeModel {
  public nonisolated let folder: ModelFolder
  private let engine: Engine
  private var loaded = false
  private var answering = false

  public init(_ folder: ModelFolder) {
    self.folder = folder
    engine = Engine(folder)
  }

  /// Verify the files and load the program; answers do it by themselves when nobody has.
  ///
  /// - Parameter verifying: whether to check every file's SHA-256 before the runtime sees it; done in any case where the
  ///   app asks for a signature, which is of those hashes.
  /// - Throws: `EdgeModelError`.
  public func load(verifying: Bool = true) async throws {
    guard !loaded else { return }
    if verifying || folder.version != nil { try folder.verify() }
    try await engine.load()
    loaded = true
  }

  /// Answer a conversation.
  ///
  /// - Returns: whole characters as they come, and statistics at the end. An answer that reaches the end of the context
  ///   ends there; a conversation that has no room before it throws `EdgeModelError.contextFull` while it is read, as
  ///   other failures throw theirs.
  public func answer(
    _ messages: [Message], options: AnswerOptions = AnswerOptions()
  ) -> AsyncThrowingStream<AnswerEvent, Error> {
    if !answering { engine.begin() }
    let (stream, continuation) = AsyncThrowingStream<AnswerEvent, Error>.makeStream()
    let task = Task {
      do {
        try await write(messages, options, to: continuation)
        continuation.finish()
      } catch {
        continuation.finish(throwing: error)
      }
    }
    continuation.onTermination = { [engine] end in
      if case .cancelled = end {
        engine.stop()
        task.cancel()
      }
    }
    return stream
  }

  /// Stop the answer that is being written, if any: its stream ends with `.done`.
  public nonisolated func stop() { engine.stop() }

  private func write(
    _ messages: [Message], _ options: AnswerOptions,
    to continuation: AsyncThrowingStream<AnswerEvent, Error>.Continuation
  ) async throws {
    guard !answering else { throw EdgeModelError.busy }
    let prompt = try folder.format.prompt(messages)
    answering = true
    defer { answering = false }
    try Task.checkCancellation()
    try await load()
    let writer = AnswerWriter(stop: folder.format.stop, continuation)
    do {
      try await engine.generate(prompt, options: options, bosTokens: folder.format.bosTokens) { writer.take($0) }
    } catch EdgeModelError.runtime(let why) {
      // A token is at least one byte of the text, so no more than these are held by now.
      let held = prompt.utf8.count + folder.format.bosTokens + (folder.format.addedTokens ?? 1) + writer.pieces
      let full = held >= folder.manifest.context
      if full && writer.pieces == 0 { throw EdgeModelError.contextFull(folder.manifest.context) }
      guard full && folder.manifest.runsAsRing else { throw EdgeModelError.runtime(why) }
    }
    writer.finish(stopped: engine.isStopping)
  }
}
