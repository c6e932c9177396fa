// The name, help text and labels of every metric. server/telemetry/README.md documents them in a table, which a test
// compares with this file.
#ifndef LONGEMBED_SERVER_TELEMETRY_METRIC_NAMES_H_
#define LONGEMBED_SERVER_TELEMETRY_METRIC_NAMES_H_

namespace longembed::metric {

struct Name {
  const char* name;
  const char* help;
};

// Calls. Labels: method, code (a gRPC status name), model (empty if the call named no model of this server).
inline constexpr Name kRequests{"longembed_requests_total", "Calls answered."};
inline constexpr Name kRequestDuration{"longembed_request_duration_seconds",
                                       "Time from a call's arrival to its answer."};
inline constexpr Name kRequestsInFlight{"longembed_requests_in_flight",
                                        "Calls that have arrived and have no answer yet."};

// Inputs. Label: model.
inline constexpr Name kInputs{"longembed_inputs_total", "Inputs embedded."};
inline constexpr Name kTokens{"longembed_tokens_total", "Tokens encoded, special tokens and prompts included."};
inline constexpr Name kTruncatedTokens{"longembed_truncated_tokens_total",
                                       "Tokens cut because the request enabled truncation."};
inline constexpr Name kSequences{"longembed_sequences_total",
                                 "Sequences of the inputs embedded, by positions method."};  // model, method
inline constexpr Name kTokenizationDuration{"longembed_tokenization_duration_seconds",
                                            "Time to tokenize and plan the inputs of one call."};
inline constexpr Name kTokenizationWait{"longembed_tokenization_wait_seconds",
                                        "Time that a call waits for a tokenizing thread."};

// The queue for tokenizing threads, for all models together.
inline constexpr Name kTokenizationTasks{"longembed_tokenization_queue_tasks",
                                         "Calls that wait for a tokenizing thread, to be tokenized or finished."};

// The model's queue and its batches. Label: model.
inline constexpr Name kQueueDuration{"longembed_queue_duration_seconds",
                                     "Time that a sequence waits, from its job's submission to its batch."};
inline constexpr Name kQueueJobs{"longembed_queue_jobs", "Jobs (calls) with waiting sequences."};
inline constexpr Name kQueueTokens{"longembed_queue_tokens", "Tokens of the waiting sequences."};
inline constexpr Name kQueueAge{"longembed_queue_oldest_seconds",
                                "Age of the job that has waited longest; 0 if none waits."};
inline constexpr Name kBatchesRunning{"longembed_batches_running", "Batches that workers are encoding."};
inline constexpr Name kInferenceDuration{"longembed_inference_duration_seconds", "Time to encode one batch."};
inline constexpr Name kBatchTokens{"longembed_batch_tokens", "Tokens in a batch."};
inline constexpr Name kBatchSequences{"longembed_batch_sequences", "Sequences in a batch."};

// Refusals, safety and life cycle.
inline constexpr Name kRejected{"longembed_rejected_total", "Calls refused with RESOURCE_EXHAUSTED."};  // model, reason
inline constexpr Name kExpectedWait{
    "longembed_expected_wait_seconds",
    "Expected queueing delay of a new interactive call, the tokenizer's queue included."};  // model
inline constexpr Name kQueueWaitLimit{"longembed_queue_wait_limit_seconds",
                                      "The config's limits.max_queue_wait."};  // model
inline constexpr Name kHeldBytes{"longembed_held_bytes",
                                 "Bytes that calls hold, counted by limits.max_pending_bytes: fixed cost of calls, "
                                 "requests, tokenizer, plans, answers."};  // kind
inline constexpr Name kAuthenticationFailures{"longembed_authentication_failures_total",
                                              "Calls refused because their API key is missing or unknown."};  // reason
inline constexpr Name kClientTokens{"longembed_client_tokens_total",
                                    "Tokens encoded for a client with an API key."};  // client
inline constexpr Name kConnectionsAccepted{"longembed_connections_accepted_total",
                                           "Connections handed to the gRPC or HTTP server."};
inline constexpr Name kConnectionsRefused{"longembed_connections_refused_total",
                                          "Connections closed before a server got them."};  // reason
inline constexpr Name kEncoderFailures{"longembed_encoder_failures_total",
                                       "Batches that failed in the encoder, except for lack of memory."};     // model
inline constexpr Name kModelLoad{"longembed_model_load_ratio", "Progress of loading a model, from 0 to 1."};  // model
inline constexpr Name kModelInfo{"longembed_model_info", "1, with the properties of a model as labels."};
inline constexpr Name kServing{"longembed_serving", "1 while health is SERVING."};
inline constexpr Name kCertificateExpiry{"longembed_tls_certificate_expiry_timestamp_seconds",
                                         "When the certificate in use expires, since the Unix epoch."};
inline constexpr Name kTlsReloads{"longembed_tls_reloads_total",
                                  "Reloads of changed certificate files, by result."};  // result
inline constexpr Name kApiKeyReloads{"longembed_api_key_reloads_total",
                                     "Reloads of the changed file of API keys, by result."};  // result
inline constexpr Name kLogLinesDropped{"longembed_log_lines_dropped_total",
                                       "Log lines lost because the reader of standard error stalled or is gone."};
inline constexpr Name kSpansDropped{"longembed_spans_dropped_total", "Spans that were not exported."};  // reason

// The process.
inline constexpr Name kBuildInfo{"longembed_build_info", "1, with the versions as labels."};
inline constexpr Name kResidentMemory{"process_resident_memory_bytes", "Resident memory."};
inline constexpr Name kMemoryLimit{"longembed_memory_limit_bytes",
                                   "Lowest memory limit of the process's control group and those above it."};
inline constexpr Name kHeapInUse{"process_heap_in_use_bytes", "Allocated with malloc and not freed."};
inline constexpr Name kVirtualMemory{"process_virtual_memory_bytes", "Virtual memory."};
inline constexpr Name kCpuSeconds{"process_cpu_seconds_total", "User and system CPU time."};
inline constexpr Name kStartTime{"process_start_time_seconds", "Start time since the Unix epoch."};
inline constexpr Name kOpenFds{"process_open_fds", "Open file descriptors."};
inline constexpr Name kMaxFds{"process_max_fds", "Limit of open file descriptors."};
inline constexpr Name kThreads{"process_threads", "Threads."};

}  // namespace longembed::metric

#endif  // LONGEMBED_SERVER_TELEMETRY_METRIC_NAMES_H_
