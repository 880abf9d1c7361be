"""The essential tests of the conformance kit: at least one of each guarantee, chosen for coverage and speed."""

from __future__ import annotations

ESSENTIAL = frozenset(
    {
        # Atomic, ordered, retry-safe, conflict-aware
        "test_a_reader_never_sees_half_a_turn",
        "test_a_failed_append_leaves_those_sent_with_it_whole",
        "test_appends_made_at_once_land_in_the_order_made",
        "test_two_stores_do_not_interleave",
        "test_positions_of_a_dropped_tail_are_not_given_again",
        "test_a_repeated_append_takes_effect_once",
        "test_the_same_id_at_the_same_time_takes_effect_once",
        "test_a_repeated_tool_turn_takes_effect_once",
        "test_another_position_is_refused_and_nothing_is_written",
        "test_truncate_at_another_position_drops_nothing",
        "test_delete_at_another_position_deletes_nothing",
        # Lossless, bounded, valid for a model, isolated, discreet
        "test_payloads_come_back_byte_for_byte",
        "test_titles_and_metadata_come_back_equal",
        "test_a_message_of_megabytes_comes_back",
        "test_a_thread_is_paged_forward_and_backward",
        "test_no_trimming_separates_a_result_from_its_call",
        "test_no_key_reaches_the_data_of_another",
        "test_no_error_shows_content",
        "test_nothing_is_logged_of_content",
        # Typed errors, ownership, cancelling
        "test_bad_input_is_refused",
        "test_a_closed_store_refuses_every_call",
        "test_a_cancelled_append_is_whole_or_absent",
        "test_it_works_in_every_kind_of_loop",
        "test_one_store_per_loop_works_in_loops_of_several_threads",
        # Threads, documents, retention, expiry
        "test_pages_show_each_thread_once",
        "test_deleting_forgets_everything_and_may_be_repeated",
        "test_of_many_that_expect_one_revision_one_wins",
        "test_a_document_comes_back_byte_for_byte",
        "test_it_holds_for_every_writer_from_the_next_append_on",
        "test_an_expired_thread_is_gone",
        # Across processes, after corruption, rewriting, importing, searching
        "test_a_thread_outlives_its_store",
        "test_another_process_goes_on_with_a_thread",
        "test_the_rest_of_the_thread_stays_usable",
        "test_a_payload_is_replaced_where_it_stands",
        "test_skipping_appends_made_together_land_in_their_order",
        "test_the_times_are_kept",
        "test_a_message_is_found_by_all_its_words_in_any_order",
        # The whole contract, against the memory engine
        "test_it_matches_the_memory_engine",
    }
)
