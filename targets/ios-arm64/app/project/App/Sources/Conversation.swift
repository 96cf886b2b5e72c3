import EdgeModel
import Foundation
import Observation

/// A conversation with the model, for views.
@MainActor
@Observable
final class Conversation {
  enum State: Equatable {
    case preparing
    case ready
    case answering
    case failed(String)
  }

  private(set) var state = State.preparing
  private(set) var messages: [Message] = []
  private(set) var remark = ""
  private let source = ModelSource()
  private var model: EdgeModel?
  private var task: Task<Void, Never>?

  /// Get the model and load it.
  func prepare() async {
    do {
      let folder = try await source.folder()
      let model = EdgeModel(folder)
      try await model.load()
      self.model = model
      state = .ready
      await watch()
    } catch {
      state = .failed(error.localizedDescription)
    }
  }

  func ask(_ text: String) {
    guard state == .ready, let model else { return }
    messages += [Message(.user, text), Message(.assistant, "")]
    state = .answering
    let asked = Array(messages.dropLast())
    task = Task {
      do {
        for try await event in await model.answer(asked) { take(event) }
        state = .ready
      } catch {
        messages.removeLast(2)
        remark = error.localizedDescription
        state = .ready
      }
    }
  }

  func stop() { model?.stop() }

  private func take(_ event: AnswerEvent) {
    switch event {
    case .text(let text):
      let last = messages.removeLast()
      messages.append(Message(.assistant, last.text + text))
    case .done(let statistics):
      if let rate = statistics.tokensPerSecond { remark = String(format: "%.1f tokens/s", rate) }
    }
  }

  /// Let the model rest when the phone is in need.
  private func watch() async {
    for await _ in DeviceState.memoryWarnings() {
      stop()
      remark = "Memory is short: the answer was stopped."
    }
  }
}
