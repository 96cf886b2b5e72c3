package org.pytorch.executorch.extension.llm;

import java.io.BufferedReader;
import java.io.Closeable;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.CharBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.List;
import java.util.concurrent.locks.ReentrantLock;
import org.pytorch.executorch.ExecutorchRuntimeException;

/**
 * The double of ExecuTorch's class, first on the class path: the same public methods, and behind them ExecuTorch's real
 * TextLLMRunner in a Python process (runner.py) instead of JNI. What ExecuTorch's JNI layer does between the two is
 * done here in the same way: bytes wait until they are valid UTF-8; a beginning-of-sequence token comes from the
 * module's configuration, and only before the first text; one method at a time.
 */
public class LlmModule implements Closeable {
  public static final int MODEL_TYPE_TEXT = 1;
  public static final int MODEL_TYPE_TEXT_VISION = 2;
  public static final int MODEL_TYPE_MULTIMODAL = 2;

  private final ReentrantLock lock = new ReentrantLock();
  private final Process process;
  private final PrintStream requests;
  private final BufferedReader replies;
  private final float defaultTemperature;
  private final int numBos;
  private boolean needsBos = true;
  private volatile boolean closed = false;

  private LlmModule(
      int modelType, String model, String tokenizer, float temperature, List<String> data, int numBos, int numEos,
      int loadMode) {
    if (modelType != MODEL_TYPE_TEXT || !data.isEmpty() || numEos != 0 || loadMode != LlmModuleConfig.LOAD_MODE_MMAP) {
      throw new UnsupportedOperationException("the double has text models, mapped, without data files");
    }
    defaultTemperature = temperature;
    this.numBos = numBos;
    try {
      process =
          new ProcessBuilder(
                  System.getProperty("edgesdk.python"), System.getProperty("edgesdk.runner"), model, tokenizer)
              .redirectError(new File(System.getProperty("edgesdk.log")))
              .start();
    } catch (IOException failure) {
      throw new UncheckedIOException(failure);
    }
    requests = new PrintStream(process.getOutputStream(), true, StandardCharsets.UTF_8);
    replies = new BufferedReader(new InputStreamReader(process.getInputStream(), StandardCharsets.US_ASCII));
  }

  public LlmModule(
      int type, String model, String tokenizer, float temperature, List<String> data, int numBos, int numEos) {
    this(type, model, tokenizer, temperature, data, numBos, numEos, LlmModuleConfig.LOAD_MODE_MMAP);
  }

  public LlmModule(int type, String model, String tokenizer, float temperature, List<String> data) {
    this(type, model, tokenizer, temperature, data, 0, 0);
  }

  public LlmModule(int type, String model, String tokenizer, float temperature, String data, int numBos, int numEos) {
    this(type, model, tokenizer, temperature, data == null ? List.of() : List.of(data), numBos, numEos);
  }

  public LlmModule(int type, String model, String tokenizer, float temperature, String data) {
    this(type, model, tokenizer, temperature, data, 0, 0);
  }

  public LlmModule(String model, String tokenizer, float temperature) {
    this(MODEL_TYPE_TEXT, model, tokenizer, temperature, List.of());
  }

  public LlmModule(String model, String tokenizer, float temperature, String data) {
    this(MODEL_TYPE_TEXT, model, tokenizer, temperature, data);
  }

  public LlmModule(int type, String model, String tokenizer, float temperature) {
    this(type, model, tokenizer, temperature, List.of());
  }

  public LlmModule(LlmModuleConfig config) {
    this(
        config.getModelType(),
        config.getModulePath(),
        config.getTokenizerPath(),
        config.getTemperature(),
        config.getDataPath() == null ? List.of() : List.of(config.getDataPath()),
        config.getNumBos(),
        config.getNumEos(),
        config.getLoadMode());
  }

  @Override
  public void close() {
    if (!lock.tryLock()) throw new IllegalStateException("Cannot close module while method is executing");
    try {
      closed = true;
      requests.close();
      process.waitFor();
    } catch (InterruptedException failure) {
      throw new IllegalStateException(failure);
    } finally {
      lock.unlock();
    }
  }

  public void resetNative() {
    close();
  }

  public void load() {
    locked(
        () -> {
          ask("load");
          String[] said = reply();
          if (!said[0].equals("done")) throw failed(said, "Failed to load model");
        });
  }

  public void generate(String prompt, LlmGenerationConfig config, LlmCallback callback) {
    generate(null, 0, 0, 0, prompt, config.getSeqLen(), callback, config.isEcho(), config.getTemperature(), 0, 0);
  }

  public void generate(
      int[] image, int width, int height, int channels, String prompt, int seqLen, LlmCallback callback,
      boolean echo, float temperature, int ignoredBos, int numEos) {
    if (image != null) throw unsupported();
    locked(
        () -> {
          float chosen = temperature >= 0 ? temperature : defaultTemperature;
          int bos = needsBos ? numBos : 0;
          String text = Base64.getEncoder().encodeToString(prompt.getBytes(StandardCharsets.UTF_8));
          ask("generate " + seqLen + " " + chosen + " " + bos + " " + (echo ? 1 : 0) + " " + text);
          answer(callback);
          needsBos = false;
        });
  }

  private void answer(LlmCallback callback) {
    byte[] held = new byte[0];
    while (true) {
      String[] said = reply();
      switch (said[0]) {
        case "piece":
          byte[] piece = Base64.getDecoder().decode(said[1]);
          byte[] all = new byte[held.length + piece.length];
          System.arraycopy(held, 0, all, 0, held.length);
          System.arraycopy(piece, 0, all, held.length, piece.length);
          String text = decoded(all);
          held = text == null ? all : new byte[0];
          if (text != null) callback.onResult(text);
          ask("next");
          break;
        case "stats":
          callback.onStats(new String(Base64.getDecoder().decode(said[1]), StandardCharsets.UTF_8));
          break;
        case "done":
          return;
        default:
          ExecutorchRuntimeException failure = failed(said, "Failed to generate");
          callback.onError(failure.getErrorCode(), "generate() failed with error code " + failure.getErrorCode());
          throw failure;
      }
    }
  }

  private static String decoded(byte[] bytes) {
    try {
      CharBuffer text = StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes));
      return text.toString();
    } catch (CharacterCodingException waiting) {
      return null;
    }
  }

  public void resetContext() {
    locked(
        () -> {
          ask("reset");
          reply();
          needsBos = true;
        });
  }

  public void stop() {
    if (!closed) ask("stop");
  }

  public void generate(String prompt, LlmCallback callback) {
    generate(prompt, 128, callback, true);
  }

  public void generate(String prompt, int seqLen, LlmCallback callback) {
    generate(prompt, seqLen, callback, true);
  }

  public void generate(String prompt, LlmCallback callback, boolean echo) {
    generate(prompt, 128, callback, echo);
  }

  public void generate(String prompt, int seqLen, LlmCallback callback, boolean echo) {
    generate(prompt, seqLen, callback, echo, -1f, 0, 0);
  }

  public void generate(
      String prompt, int seqLen, LlmCallback callback, boolean echo, float temperature, int numBos, int numEos) {
    generate(null, 0, 0, 0, prompt, seqLen, callback, echo, temperature, numBos, numEos);
  }

  public void generate(
      int[] image, int width, int height, int channels, String prompt, int seqLen, LlmCallback callback, boolean echo) {
    generate(image, width, height, channels, prompt, seqLen, callback, echo, -1f);
  }

  public void generate(
      int[] image, int width, int height, int channels, String prompt, int seqLen, LlmCallback callback, boolean echo,
      float temperature) {
    generate(image, width, height, channels, prompt, seqLen, callback, echo, temperature, 0, 0);
  }

  public void prefillImages(int[] image, int width, int height, int channels) {
    throw unsupported();
  }

  public void prefillImages(ByteBuffer image, int width, int height, int channels) {
    throw unsupported();
  }

  public void prefillNormalizedImage(ByteBuffer image, int width, int height, int channels) {
    throw unsupported();
  }

  public void prefillImages(float[] image, int width, int height, int channels) {
    throw unsupported();
  }

  public void prefillAudio(byte[] audio, int batch, int bins, int frames) {
    throw unsupported();
  }

  public void prefillAudio(float[] audio, int batch, int bins, int frames) {
    throw unsupported();
  }

  public void prefillRawAudio(byte[] audio, int batch, int channels, int samples) {
    throw unsupported();
  }

  public void prefillPrompt(String prompt) {
    throw unsupported();
  }

  private void locked(Runnable work) {
    lock.lock();
    try {
      if (lock.getHoldCount() > 1) throw new IllegalStateException("Cannot call LlmModule methods from a callback");
      if (closed) throw new IllegalStateException("LlmModule has been destroyed");
      work.run();
    } finally {
      lock.unlock();
    }
  }

  private synchronized void ask(String request) {
    requests.println(request);
  }

  private String[] reply() {
    try {
      String line = replies.readLine();
      if (line == null) throw new IllegalStateException("the runner's process ended");
      return line.split(" ", 2);
    } catch (IOException failure) {
      throw new UncheckedIOException(failure);
    }
  }

  private static ExecutorchRuntimeException failed(String[] said, String what) {
    String message = new String(Base64.getDecoder().decode(said[1]), StandardCharsets.UTF_8);
    return new ExecutorchRuntimeException(ExecutorchRuntimeException.INTERNAL, what + ": " + message);
  }

  private static UnsupportedOperationException unsupported() {
    return new UnsupportedOperationException("the double has text models only");
  }
}
