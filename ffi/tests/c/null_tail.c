
    if (new_encoder != NULL || new_job != NULL || new_golden != NULL || new_monitor != NULL || new_cancel != NULL) {
        puts("an output was written by a call that failed");
        return 1;
    }
    ssl_edge_cancel_free(cancel);
    ssl_edge_monitor_free(monitor);
    ssl_edge_golden_free(golden);
    ssl_edge_job_free(job);
    ssl_edge_encoder_free(encoder);
    printf("%d calls\n", n_calls);
    return 0;
}
