package dev.edgesdk.chat

import android.app.Activity
import android.os.Bundle
import android.view.View
import android.view.ViewGroup.LayoutParams.MATCH_PARENT
import android.view.ViewGroup.LayoutParams.WRAP_CONTENT
import android.widget.Button
import android.widget.EditText
import android.widget.LinearLayout
import android.widget.ScrollView
import android.widget.TextView
import dev.edgesdk.edgemodel.BundleDamagedException
import dev.edgesdk.edgemodel.BundleMissingException
import dev.edgesdk.edgemodel.BundleStore
import dev.edgesdk.edgemodel.Conversation
import dev.edgesdk.edgemodel.EdgeModel
import dev.edgesdk.edgemodel.EdgeModelException
import dev.edgesdk.edgemodel.ModelPack
import dev.edgesdk.edgemodel.PackState
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.MainScope
import kotlinx.coroutines.NonCancellable
import kotlinx.coroutines.cancel
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.onEach
import kotlinx.coroutines.isActive
import kotlinx.coroutines.launch
import kotlinx.coroutines.withContext

/** A conversation on one screen: it waits for the model, loads it, and answers; where that fails, it can be repeated. */
class ChatActivity : Activity() {
    private val scope: CoroutineScope = MainScope()
    private val talk by lazy { TextView(this) }
    private val input by lazy { EditText(this) }
    private val button by lazy { Button(this) }
    private val page by lazy { ScrollView(this) }
    private var model: EdgeModel? = null
    private var conversation: Conversation? = null
    private var answering: Job? = null
    private var wayOut: (suspend () -> Unit)? = null // of a model that is not there, or damaged

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        setContentView(screen())
        scope.launch { begin() }
    }

    override fun onDestroy() {
        val loaded = model
        loaded?.stop()
        val running = answering
        scope.launch(NonCancellable) {
            running?.join()
            withContext(Dispatchers.IO) { loaded?.close() }
        }
        scope.cancel()
        super.onDestroy()
    }

    private fun screen(): View {
        talk.setTextIsSelectable(true)
        talk.text = "Looking for the model ..."
        page.addView(talk)
        input.hint = "Ask the model"
        button.text = "Send"
        button.isEnabled = false
        button.setOnClickListener { pressed() }
        val line = LinearLayout(this)
        line.addView(input, LinearLayout.LayoutParams(0, WRAP_CONTENT, 1f))
        line.addView(button)
        val whole = LinearLayout(this)
        whole.orientation = LinearLayout.VERTICAL
        whole.fitsSystemWindows = true
        whole.setPadding(32, 32, 32, 32)
        whole.addView(page, LinearLayout.LayoutParams(MATCH_PARENT, 0, 1f))
        whole.addView(line)
        return whole
    }

    /** Loads the model, after what has to be done before; where that fails, the button offers the way out. */
    private suspend fun begin(before: suspend () -> Unit = {}) {
        button.isEnabled = false
        show("Looking for the model ...")
        try {
            before()
            load()
        } catch (damaged: BundleDamagedException) {
            offer("Remove and fetch again", damaged) { withContext(Dispatchers.IO) { BundleStore.forget(this@ChatActivity) } }
        } catch (failure: EdgeModelException) {
            offer("Try again", failure) {}
        }
        button.isEnabled = true
    }

    private fun offer(label: String, failure: EdgeModelException, work: suspend () -> Unit) {
        show("${failure.message}\n")
        button.text = label
        wayOut = work
    }

    /** Loads the model, after fetching its pack where that is still to be done. */
    private suspend fun load() {
        val loaded =
            try {
                opened()
            } catch (missing: BundleMissingException) {
                fetch()
                opened()
            }
        model = loaded
        conversation = Conversation(loaded)
        show("Loaded in %.1f s.\n".format(loaded.loadSeconds))
    }

    private suspend fun opened(): EdgeModel =
        withContext(Dispatchers.IO) {
            EdgeModel.open(BundleStore.locate(this@ChatActivity)).also { if (!isActive) it.close() }
        }

    private suspend fun fetch() {
        val pack = ModelPack(this)
        val last =
            pack.fetch()
                .onEach { if (it is PackState.NeedsConfirmation) pack.confirm(this) else show(said(it)) }
                .first { it is PackState.Ready || it is PackState.Failed }
        if (last is PackState.Failed) {
            throw BundleMissingException("Google Play could not fetch the model: error ${last.code}")
        }
    }

    private fun said(state: PackState): String =
        when (state) {
            is PackState.Fetching -> "Fetching the model: ${state.done / 1_000_000} of ${state.total / 1_000_000} MB"
            else -> ""
        }

    private fun pressed() {
        if (answering?.isActive == true) {
            model?.stop()
            return
        }
        wayOut?.let {
            wayOut = null
            button.text = "Send"
            scope.launch { begin(it) }
            return
        }
        val question = input.text.toString()
        val talking = conversation ?: return
        if (question.isBlank()) return
        input.setText("")
        talk.append("\n> $question\n")
        button.text = "Stop"
        answering =
            scope.launch {
                reporting {
                    talking.ask(question).collect {
                        talk.append(it)
                        page.fullScroll(View.FOCUS_DOWN)
                    }
                    model?.statistics?.decodeRate?.let { talk.append("\n[%.1f tokens/s]\n".format(it)) }
                }
                button.text = "Send"
            }
    }

    private suspend fun reporting(work: suspend () -> Unit) {
        try {
            work()
        } catch (failure: EdgeModelException) {
            talk.append("\n${failure.message}\n")
        }
    }

    private fun show(text: String) {
        talk.text = text
    }
}
