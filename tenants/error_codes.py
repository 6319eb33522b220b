"""Every code of an error, with what it means and what to do next. Pure: the gateway reads it too.

`/docs/errors` shows this table; `type` of every problem+json points into it. A code that is raised anywhere and
is not here fails a test.
"""

from __future__ import annotations


def _(text: str) -> str:
    """Mark a sentence for translation; the page translates it as it is shown."""
    return text


def problem_type(code: str) -> str:
    """Where a reader finds this code: the `type` of RFC 9457."""
    return f"/docs/errors#{code}"


# title -> code -> what it means and what to do next
GROUPS: dict[str, dict[str, str]] = {
    _("Signing in and rights"): {
        "not_signed_in": _(
            "Nobody is signed in, or the token is not known. Sign in, or send “Authorization: Bearer tau_…”."
        ),
        "not_authenticated": _(
            "The call carries neither a session nor a token. Sign in, or send “Authorization: Bearer tau_…”."
        ),
        "authentication_failed": _(
            "The token is not known, has expired or was revoked. Make a new one on the page Tokens."
        ),
        "permission_denied": _(
            "The session may not do this; often the CSRF token is missing. Reload the page, or use an API token."
        ),
        "forbidden": _(
            "You may see this but not do it: role, token scopes or share do not reach so far. Ask an owner or admin."
        ),
        "not_found": _(
            "It does not exist, or it is not yours to see; both look alike. Check the id and the tenant you act in."
        ),
        "link_used_up": _(
            "A sign-in link works once and for 24 hours. Sign in another way, or have a new link made."
        ),
        "invitation_over": _(
            "The invitation was used or withdrawn, has expired, or its sender may no longer invite. Ask for a new one."
        ),
        "last_owner": _("A tenant keeps at least one owner. Make somebody else an owner first."),
        "above_own_role": _("Nobody gives a role above their own. Choose a lower one, or ask an owner."),
        "unknown_role": _("There is no such role. The answer lists those there are."),
        "already_member": _(
            "This address belongs to the tenant already. Change the role on the page Members instead."
        ),
        "already_invited": _("This address has an open invitation. Withdraw it before sending another."),
        "unknown_person": _(
            "No account has confirmed this e-mail address. The person signs up and confirms it; then share again."
        ),
        "unknown_token": _("The tenant has no token with this id. Copy it from the page Tokens."),
        "dead_token": _("The token was revoked or has expired. Make a new one and share with that."),
        "not_grantable": _(
            "This permission cannot be given on such an object. The answer lists those that can."
        ),
        "one_of": _("Exactly one of two fields is wanted. Leave one of them out."),
        "unknown_scope": _("There is no such scope. The page for new tokens shows them all."),
        "beyond_reach": _(
            "A token cannot do more than its maker. Leave the scope out, or ask for a higher role."
        ),
    },
    _("Requests"): {
        "refused": _("This cannot be done; the detail says why."),
        "invalid": _(
            "Something sent is not valid. Each entry of “errors” points at one field and says what is wanted."
        ),
        "error": _("The request was refused; the detail says why."),
        "bad_address": _(
            "The address holds a character that no address of Tauon has. Check how it was put together."
        ),
        "bad_parameter": _(
            "A parameter of the address is not known or not valid. The detail lists what is known."
        ),
        "parse_error": _("The body is not JSON. The detail says where reading stopped."),
        "unsupported_media_type": _(
            "The body comes in a form that is not read here. Send application/json, or multipart/form-data for files."
        ),
        "not_acceptable": _("The Accept header asks for a form there is none of. Ask for application/json."),
        "method_not_allowed": _(
            "This address does not take the method. The header Allow lists those it takes."
        ),
        "too_large": _(
            "The body or the file is larger than allowed. Send less at once; the detail says how much."
        ),
        "too_many_requests": _("More requests a minute than allowed. Wait as long as Retry-After says."),
        "throttled": _("More requests a minute than allowed. Wait as long as Retry-After says."),
        "bad_idempotency_key": _("An Idempotency-Key has at most 255 characters. Use a shorter one."),
        "key_reused": _("This Idempotency-Key was sent with another body. Use a new key for a new request."),
        "still_running": _("The first request with this Idempotency-Key is not done. Try again in a moment."),
        "conflict": _("Somebody changed it in the meantime. Read it again, then repeat the change."),
        "illegal_move": _(
            "It is no longer in a state that allows this. Read it again to see where it stands."
        ),
        "quota_exceeded": _(
            "The tenant's quota leaves no room. Stop or archive something, or have the quota raised."
        ),
        "unavailable": _(
            "A part of this installation does not answer. Try again shortly; an operator finds the cause in its log."
        ),
        "internal_error": _(
            "Something broke here, not at your end. Try again; tell the operator the request id if it stays."
        ),
        "disk_full": _(
            "The disk of this installation is full and nothing was kept. The operator frees space; then send it again."
        ),
    },
    _("Fields"): {
        "required": _("The field is missing. Add it."),
        "null": _("The field is null and may not be. Send a value or leave it out."),
        "blank": _("The field is empty. Give it a value."),
        "empty": _("The list or the file is empty. Put something into it."),
        "unknown_field": _(
            "There is no such field; it may be a typing error. The detail lists the known ones."
        ),
        "unknown": _("There is no such thing. The detail lists what there is."),
        "invalid_choice": _(
            "The value is none of those allowed. The detail or the API reference lists them."
        ),
        "type": _(
            "The value has another type than wanted, for example text in place of a number. Send it as the detail says."
        ),
        "text": _(
            "A text is wanted here, in characters that can be stored. Take out what cannot be printed."
        ),
        "format": _("The value is not written in the wanted form. The detail shows the form."),
        "range": _("The number is too small or too large. The detail names both ends."),
        "length": _("The text is too short or too long. The detail names both ends."),
        "too_long": _("The text or the span is too long. Shorten it as the detail says."),
        "order": _(
            "Two values stand in the wrong order, such as an end before its start. Swap or mend them."
        ),
        "taken": _("The name is in use already. Choose another."),
        "not_an_object": _("A JSON object is wanted, in curly brackets."),
        "mismatch": _("Two fields contradict each other. The detail says which and how they fit."),
        "max_length": _("The text is too long. Shorten it to the length in the detail."),
        "min_length": _("The text is too short. The detail says how long it is at least."),
        "max_value": _("The number is too large. The detail names the largest."),
        "min_value": _("The number is too small. The detail names the smallest."),
        "max_string_length": _("The number has far too many digits."),
        "max_digits": _("The number has too many digits. The detail says how many it may have."),
        "max_decimal_places": _("The number has too many decimal places. Round it as the detail says."),
        "max_whole_digits": _("The number has too many digits before the decimal point."),
        "overflow": _("The number is too large to be reckoned with."),
        "not_a_list": _("A JSON list is wanted, in square brackets."),
        "date": _("A date is wanted, without a time, such as 2026-03-01."),
        "datetime": _("A date with a time is wanted, such as 2026-03-01T00:00:00Z."),
        "make_aware": _("The time does not exist in its time zone. Send it in UTC, ending in Z."),
        "email": _("This is not an e-mail address. Check it for typing errors."),
        "no_name": _("The uploaded file has no name. Send one in the multipart header."),
        "not_a_dict": _("A JSON object is wanted, in curly brackets."),
        "invalid_unicode": _("The text is not proper UTF-8. Send it again as UTF-8."),
        "null_characters_not_allowed": _("The text holds a NUL character. Take it out."),
        "surrogate_characters_not_allowed": _("The text holds half of a character. Send proper UTF-8."),
    },
    _("Datasets and their files"): {
        "unknown_format": _(
            "The file is of no kind that is read: CSV, JSON Lines, or a zip of images. Convert it first."
        ),
        "bad_encoding": _("The text is not UTF-8. Save it as UTF-8 and upload it again."),
        "json_array": _("The file is one JSON list. Write one object a line (JSON Lines)."),
        "no_header": _("The first row must name every column. Add or mend the header."),
        "one_column": _(
            "A table needs two columns at least, one to learn from and one to predict. Check what cells end with."
        ),
        "duplicate_column": _("Two columns have one name. Rename one of them."),
        "too_many_columns": _("There are more columns than are read. Leave out those that are not needed."),
        "too_many_classes": _(
            "There are more classes than can be told apart. Choose another label column, or merge rare classes."
        ),
        "one_class": _("There is only one class, so nothing can be told apart. Add rows of a second one."),
        "bad_row": _("This row cannot be used; the detail says why. Mend it, or leave it out."),
        "too_many_bad_rows": _(
            "Too many rows cannot be used. The first of them are named by number; mend them and upload again."
        ),
        "no_good_row": _(
            "No row can be used. The first of them are named by number; mend the file and upload it again."
        ),
        "missing_values": _("The label column has empty cells. Fill them in, or leave the rows out."),
        "corrupt_zip": _("The zip is damaged. Make it again and upload it again."),
        "encrypted_zip": _("The zip has a password. Make one without."),
        "zip_bomb": _("The zip unpacks to far more than it weighs. Upload plain files in smaller zips."),
        "too_many_entries": _("The zip holds too many files. Split it."),
        "path_escapes": _("A path in the zip points outside of it. Zip a plain folder."),
        "symlink": _("The zip holds a link or a device. Zip the files themselves."),
        "duplicate_name": _("One path is in the zip twice. Make the zip again."),
    },
    _("Jobs"): {
        "archived": _(
            "The dataset or model version is archived. Choose another, or restore it while its files are kept."
        ),
        "none": _("The dataset has no version that can be used. Upload one."),
        "wrong_format": _("The recipe wants another kind of data. Choose a dataset or recipe that fits."),
        "missing_column": _(
            "The model needs this input, and no column is called so. Name the column under “columns”."
        ),
        "no_files": _("The files of this model version are gone. Choose another version."),
        "unknown_column": _("The dataset has no such column. The detail lists those it has."),
        "not_a_number": _(
            "A column of numbers is wanted here. Choose another one, or mend the values that are none."
        ),
        "constant": _(
            "The column is the same in every row, so there is nothing to predict. Choose another one."
        ),
        "is_label": _("The label cannot be learned from. Leave it out of the features."),
        "not_used": _("The recipe does not use this field. Leave it out."),
        "too_few_rows": _("There are too few rows to learn from and to check with. Add rows."),
        "not_there": _(
            "It asks for more than this installation has, such as GPUs. The detail says what there is."
        ),
        "unsupported": _("This combination is not offered. The detail says what is."),
        "below_estimate": _(
            "The spend limit lies below the least that the job is expected to cost. Raise the limit, or ask for less."
        ),
        "bad_result": _(
            "What the training left behind cannot be read, so no model was made. Start the job again."
        ),
    },
    _("Endpoints"): {
        "not_servable": _("This version cannot answer calls. Choose another version or train again."),
        "too_many": _("The endpoint has as many of these as it may. Remove one first."),
        "unknown_host": _("The name of this address is not known. Check it for typing errors."),
        "private": _(
            "The address leads into a private network. Ask the staff of this installation to allow its host."
        ),
        "starting": _("The endpoint or the gateway is starting. Try again after Retry-After."),
        "warming": _("The endpoint slept and a worker is waking up. Try again after Retry-After."),
        "stopped": _("The endpoint is stopped. Somebody who may publish starts it on its page."),
        "not_ready": _("No worker of the endpoint is ready. Its page says why; try again later."),
        "queue_full": _(
            "More calls wait than the endpoint keeps. Try again after Retry-After, or call less often."
        ),
        "busy": _("The worker has no room for another call right now. Try again in a moment."),
        "too_many_at_once": _(
            "As many requests as this endpoint takes at once are under way. Wait for an answer, then send the next."
        ),
        "address": _("This is no address and no network. Write one like 203.0.113.7 or 203.0.113.0/24."),
        "address_not_allowed": _(
            "The key has a list of addresses, and the call comes from another. Whoever made the key can change it."
        ),
        "bad_timeout": _(
            "X-Request-Timeout-Ms is a whole number of milliseconds above zero. Mend or omit it."
        ),
        "headers_too_slow": _("The headers came too slowly. Check the connection and send it again."),
        "headers_too_large": _("The headers are larger than a gateway takes. Send fewer or shorter ones."),
        "deadline": _("The answer took longer than allowed. Send fewer rows, or try again."),
        "body_too_slow": _("The body came too slowly. Check the connection and send it again."),
        "not_a_request": _("The body is no infer request. See “inputs” in the playground's curl command."),
        "model_failed": _(
            "The model broke over this input. Compare it with the sample on the endpoint's page."
        ),
        "cannot_count": _(
            "The call could not be written down, so it was not made. The operator checks the gateway's disk."
        ),
    },
    _("Money"): {
        "budget_reached": _(
            "The tenant's budget is used up and stops new work. Raise it on the page Usage, or wait for the next month."
        ),
        "not_enough_credit": _(
            "The tenant pays ahead and its credit does not cover this. Add credit, then try again."
        ),
        "unpaid_invoices": _("Invoices are overdue, so new work is refused. Pay them on the page Invoices."),
        "parked": _(
            "Billing of this account waits for a person to look at it. The staff of the installation says why."
        ),
        "not_yet": _("The period is not over. An invoice is made when it is."),
        "nothing_to_bill": _("Nothing was used in this period, so there is no invoice."),
        "too_much": _("More than is left is asked for. The detail says how much there is."),
        "not_wanted": _("The field has no meaning together with the others. Leave it out."),
        "same": _("Two groups are the same. Choose another second one."),
        "past": _("A price cannot begin in the past: what was used keeps its price. Begin it now or later."),
        "not_tiered": _(
            "Only graduated and volume prices have tiers. Leave them out, or choose such a price."
        ),
        "future": _("The time lies ahead of the clock of this installation. Send it when it has come."),
        "too_late": _("Usage so old is not taken any more."),
        "naive": _("The time has no time zone. Send it in UTC, ending in Z."),
        "count": _("There are too few or too many items in one call. The detail says how many it takes."),
        "not_midnight": _("A report begins and ends at midnight UTC. Send whole days."),
        "negative": _("A quantity is zero or more."),
        "too_fine": _("The number has more decimal places than are kept. Round it as the detail says."),
    },
}
CODES: dict[str, str] = {code: text for group in GROUPS.values() for code, text in group.items()}
