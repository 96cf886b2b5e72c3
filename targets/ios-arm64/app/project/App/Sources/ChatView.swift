import EdgeModel
import SwiftUI

struct ChatView: View {
  @State private var conversation = Conversation()
  @State private var draft = ""

  var body: some View {
    VStack(spacing: 0) {
      ScrollView {
        LazyVStack(alignment: .leading, spacing: 12) {
          ForEach(Array(conversation.messages.enumerated()), id: \.offset) { _, message in
            Text(message.text)
              .padding(10)
              .background(message.role == .user ? Color.accentColor.opacity(0.15) : Color.secondary.opacity(0.1))
              .clipShape(RoundedRectangle(cornerRadius: 12))
              .frame(maxWidth: .infinity, alignment: message.role == .user ? .trailing : .leading)
              .textSelection(.enabled)
          }
        }
        .padding()
      }
      .defaultScrollAnchor(.bottom)
      status
      HStack {
        TextField("Message", text: $draft, axis: .vertical)
          .textFieldStyle(.roundedBorder)
          .onSubmit(send)
        if conversation.state == .answering {
          Button("Stop", action: conversation.stop)
        } else {
          Button("Send", action: send)
            .disabled(conversation.state != .ready || draft.isEmpty)
        }
      }
      .padding()
    }
    .task { await conversation.prepare() }
  }

  @ViewBuilder
  private var status: some View {
    switch conversation.state {
    case .preparing: ProgressView("Preparing the model")
    case .failed(let why): Text(why).foregroundStyle(.red).padding(.horizontal)
    default: Text(conversation.remark).font(.footnote).foregroundStyle(.secondary)
    }
  }

  private func send() {
    guard !draft.isEmpty else { return }
    conversation.ask(draft)
    draft = ""
  }
}
